use super::*;

#[test]
fn spellings_of_one_mailbox_have_one_canonical_form() {
    for (canonical_form, spellings) in [
        (
            "ada@example.com",
            &["ada@example.com", " ADA@Example.COM\n", "\"ada\"@example.com", "\"a\\DA\"@example.com"] as &[&str],
        ),
        ("hana..s.@docomo.ne.jp", &["Hana..s.@docomo.ne.jp", "\"hana..s.\"@DOCOMO.ne.jp"]),
        (
            "jörg@xn--mller-kva.example",
            &["jörg@müller.example", "Jörg@müller.example", "jörg@xn--mller-kva.example", "JÖRG@MÜLLER.example"],
        ),
        ("ada@xn--c2bd1gb.xn--h2brj9c", &["ada@डाटा.भारत"]),
        (
            "ada@xn--bcher-kva.example",
            &["ada@bücher.example", "ada@BU\u{308}CHER.example", "Ada@XN--BCHER-KVA.example"],
        ),
        ("jos\u{e9}@example.com", &["JOSÉ@example.com", "jose\u{301}@example.com", "\"jose\u{301}\"@example.com"]),
        ("i\u{307}nci@example.com", &["İnci@example.com", "I\u{307}nci@example.com"]),
        ("ılgaz@example.com", &["ılgaz@EXAMPLE.com"]),
        ("groß@xn--strae-oqa.example", &["groß@straße.example", "GROẞ@STRAẞE.example"]),
        ("οδοσ@example.com", &["ΟΔΟΣ@example.com", "οδος@example.com"]),
        ("\"ada lovelace\"@example.com", &["\"Ada Lovelace\"@example.com"]),
        ("k@example.com", &["\u{212a}@example.com", "K@ｅｘａｍｐｌｅ.com"]),
        ("\"\\\"a\\\"\"@example.com", &["\"\\\"A\\\"\"@example.com"]),
        ("nobody", &["Nobody "]),
    ] {
        for spelling in spellings {
            assert_eq!(canonical(spelling), canonical_form, "{spelling}");
        }
    }
    for (one, other) in [
        ("ada@example.com", "ad.a@example.com"),
        ("groß@example.com", "gross@example.com"),
        ("ılgaz@example.com", "ilgaz@example.com"),
        ("\"a b\"@example.com", "ab@example.com"),
    ] {
        assert_ne!(canonical(one), canonical(other), "{one} {other}");
    }
}

fn stored(text: &str) -> Option<String> {
    EmailAddress::parse(text).map(String::from)
}

#[test]
fn an_address_is_stored_trimmed_and_in_nfc() {
    assert_eq!(stored(" jose\u{301}@example.com ").unwrap(), "jos\u{e9}@example.com");
    assert_eq!(stored("ada@bu\u{308}cher.EXAMPLE\n").unwrap(), "ada@b\u{fc}cher.EXAMPLE");
}

#[test]
fn addresses_that_exist_are_accepted() {
    for text in [
        "hana..s.@docomo.ne.jp",
        ".a@ezweb.ne.jp",
        "a.@example.com",
        "jos\u{e9}@example.com",
        "अजय@डाटा.भारत",
        "ada@क्\u{200d}ष.भारत",
        "علی\u{200c}رضا@example.com",
        "क्\u{200d}ष@example.com",
        "用户@例子.公司",
        "ユーザー@example.co.jp",
        "x\u{304}@example.com",
        "😀@example.com",
        "👩\u{200d}💻@example.com",
        "❤\u{fe0f}\u{200d}🔥@example.com",
        "!#$%&'*+-/=?^_`{|}~@example.com",
        "\"a b\"@example.com",
        "\"a@b\"@example.com",
        "\"\\\"a\\\\\"@example.com",
        "\"a.@;<>,:()[]\"@example.com",
        "ada@xn--bcher-kva.example",
        "ada@r3---sn-4g5e6nzz.example",
        "ada@ｅｘａｍｐｌｅ.com",
        "ada@example。com",
        "ada@1.2.3.example",
        "a@b.co",
        "ada@straße.example",
    ] {
        assert_eq!(stored(text).as_deref(), Some(text));
    }
}

#[test]
fn other_texts_are_refused() {
    for text in [
        "",
        "@",
        "nobody",
        "a@b",
        "@example.com",
        "a@",
        "Ada <ada@example.com>",
        "<ada@example.com>",
        "mailto:ada@example.com",
        "ada@example.com, b@example.com",
        "a b@example.com",
        "a@b@example.com",
        "\"a\"b@example.com",
        "\"a\\\"@example.com",
        "\"a\tb\"@example.com",
        "\"a\nb\"@example.com",
        "a\u{a0}b@example.com",
        "a\u{3000}b@example.com",
        "a@b\0.example",
        "\"a\0\"@example.com",
        "a\u{202e}b@example.com",
        "a\u{200b}b@example.com",
        "a\u{200d}b@example.com",
        "\u{200d}क@example.com",
        "क\u{200c}@example.com",
        "\u{3164}@example.com",
        "a\u{fe0f}@example.com",
        "\u{e000}@example.com",
        "\u{378}@example.com",
        "ada@exa\u{ad}mple.com",
        "ada@exam ple.com",
        "ada@[127.0.0.1]",
        "ada@127.0.0.1",
        "ada@example.123",
        "ada@example.com.",
        "ada@.example.com",
        "ada@a..example",
        "ada@-a.example",
        "ada@a-.example",
        "ada@a_b.example",
        "ada@xn--a.example",
        "ada@\u{301}a.example",
        "ada＠example.com",
    ] {
        assert_eq!(stored(text), None, "{text:?}");
    }
}

#[test]
fn lengths_are_limited_in_octets() {
    let of = |local: &str, domain: &str| stored(&format!("{local}@{domain}")).is_some();
    assert!(of(&"a".repeat(64), "example.com") && !of(&"a".repeat(65), "example.com"));
    assert!(of(&"é".repeat(32), "example.com") && !of(&"é".repeat(33), "example.com"));
    // It is longer than 64 octets only as it was sent.
    assert!(of(&"e\u{301}".repeat(32), "example.com"));
    assert!(of(&format!("\"{}\"", "a".repeat(62)), "example.com"));
    assert!(of("a", &format!("{}.example", "b".repeat(63))) && !of("a", &format!("{}.example", "b".repeat(64))));
    let labels = format!("{}.", "c".repeat(62)).repeat(3);
    let domain = |octets: usize| format!("{}.{labels}d", "b".repeat(octets - 191));
    for (octets, fits) in [(252, true), (253, false)] {
        assert_eq!(domain(octets).len(), octets);
        assert_eq!(of("a", &domain(octets)), fits, "{octets}");
    }
    // A domain's length counts in ASCII.
    assert!(!of("a", &format!("{}.example", "ü".repeat(60))));
}
