//! Builds the last release ahead of the tests, which would share the machine with it.

fn main() {
    tests::LastRelease::get().build();
}
