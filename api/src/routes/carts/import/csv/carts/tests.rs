use serde_json::{Value, json};

use super::*;
use crate::routes::carts::import::lines::{Format, Lines};

/// First and last line of each cart, and the cart as JSON or its error.
fn read(file: &str) -> Vec<(u64, u64, Result<Value, String>)> {
    let mut lines = Lines::new(Format::Csv);
    let mut read = Vec::new();
    for piece in file.as_bytes().chunks(7).chain([&b""[..]]) {
        lines.feed(piece);
        let at_end = piece.is_empty();
        while let Some(line) = lines.next(at_end).expect("a good header") {
            let content = match line.content {
                Ok(json) if line.errors.is_empty() => Ok(serde_json::from_str(json.get()).expect("it is JSON")),
                Ok(_) => Err(line.errors.iter().map(|error| format!("{} {}", error.field, error.message)).collect()),
                Err(error) => Err(error.body().message.to_owned()),
            };
            read.push((line.number, line.last, content));
        }
    }
    read
}

const HEADER: &str = "externalId;customerEmail;itemName;itemQuantity;itemPrice;itemSku\n";

fn numbers(file: &str) -> Vec<(u64, u64, bool)> {
    read(&format!("{HEADER}{file}")).into_iter().map(|(first, last, cart)| (first, last, cart.is_ok())).collect()
}

#[test]
fn consecutive_records_with_the_same_id_are_one_cart() {
    let read = read(&format!(
        "{HEADER}A;a@example.com;Tea;2;4,50;\n\
         ;;;;;\n\
         A;other@example.com;'=Cup;1;1.20;S-1\n\
         ;b@example.com;Pot;1;30;\n\
         ;b@example.com;Pot;1;30;\n\
         C;c@example.com;;x;;\n\
         A;a@example.com;Tea;1;1;\n"
    ));
    let cart = |id: Option<&str>, email: &str, items: Value| {
        let mut cart = json!({"customerEmail": email, "items": items});
        if let Some(id) = id {
            cart["externalId"] = json!(id);
        }
        Ok(cart)
    };
    let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let pot = json!([{"name": "Pot", "quantity": 1, "price": 30}]);
    let error = "items[0].quantity must be a number such as 12.50 or 12,50, without currency or thousands separators";
    let expected = [
        (
            2,
            4,
            cart(
                Some("A"),
                "a@example.com",
                json!([
                    {"name": "Tea", "quantity": 2, "price": number("4.50")},
                    {"name": "=Cup", "quantity": 1, "price": number("1.20"), "sku": "S-1"},
                ]),
            ),
        ),
        (5, 5, cart(None, "b@example.com", pot.clone())),
        (6, 6, cart(None, "b@example.com", pot)),
        (7, 7, Err(error.to_owned())),
        (8, 8, cart(Some("A"), "a@example.com", json!([{"name": "Tea", "quantity": 1, "price": 1}]))),
    ];
    assert_eq!(read, expected);
}

#[test]
fn a_record_that_cannot_be_read_refuses_its_cart_once() {
    assert_eq!(numbers("A;a;T;1;1;\nA;a;T;1\nA;a;T;1;1;\nB;b;T;1;1;\n"), [(2, 4, false), (5, 5, true)]);
    assert_eq!(numbers("A;a;T;1\nA;a;T;1;1;\n"), [(2, 2, false), (3, 3, false)], "the first one");
}

#[test]
fn a_record_that_may_belong_to_either_cart_refuses_both() {
    let unknown = "x;y\n";
    assert_eq!(
        numbers(&format!("A;a;T;1;1;\n{unknown}B;b;T;1;1;\nB;b;T;1;1;\nC;c;T;1;1;\n")),
        [(2, 2, false), (3, 3, false), (4, 5, false), (6, 6, true)]
    );
    // Carts without an id are complete.
    assert_eq!(numbers(&format!(";a;T;1;1;\n{unknown};b;T;1;1;\n")), [(2, 2, true), (3, 3, false), (4, 4, true)]);
    let long = format!("A;a;{};1;1;\n", "x".repeat(LINE_BYTES));
    assert_eq!(
        numbers(&format!("A;a;T;1;1;\n{long}A;a;T;1;1;\nC;c;T;1;1;\n")),
        [(2, 2, false), (3, 3, false), (4, 4, false), (5, 5, true)]
    );
}

#[test]
fn a_cart_is_bounded() {
    let full = "A;a;T;1;1;\n".repeat(MAX_ITEMS);
    assert_eq!(numbers(&format!("{full}B;b;T;1;1;\n")), [(2, 1001, true), (1002, 1002, true)]);
    assert_eq!(numbers(&format!("{full}{full}B;b;T;1;1;\n")), [(2, 2001, false), (2002, 2002, true)]);
    let long = format!("A;a;{};1;1;\n", "x".repeat(LINE_BYTES / 4));
    assert_eq!(numbers(&long.repeat(3)), [(2, 4, true)]);
    assert_eq!(numbers(&format!("{}B;b;T;1;1;\n", long.repeat(9))), [(2, 10, false), (11, 11, true)]);
}

/// A million records of one cart, fed as they are read, hold no memory.
#[test]
fn an_endless_cart_is_one_error() {
    let header = Header::new(&["externalId", "customerEmail", "itemName", "itemQuantity", "itemPrice"], b',').unwrap();
    let mut carts = Carts::default();
    for number in 2..=1_000_001 {
        let (cells, ends) = (b"AaT11", [1, 2, 3, 4, 5]);
        carts.add(&header, &Record { number, bytes: 10, cells: Some((cells, &ends)) });
        assert!(carts.next().is_none());
        if number > 1_001 {
            assert!(carts.open.as_ref().is_some_and(|open| open.items.is_err()));
        }
    }
    carts.end();
    let line = carts.next().unwrap();
    assert_eq!((line.number, line.last, line.content.is_err()), (2, 1_000_001, true));
    assert!(carts.next().is_none());
}
