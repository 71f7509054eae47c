//! Builds the last release before the tests, so that the build does not slow them down.

fn main() {
    tests::LastRelease::get().build();
}
