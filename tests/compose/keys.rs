//! Samples of every key of the specification's schema, made of `keys.json`. There, each object has its keys with samples of their values, the first in
//! the form that the loader brings all others into; `""` is what every sample of the object has beside the key, and `{ "$": NAME }` stands for each
//! sample of that object. `corpus.py --schema` holds the file against the schema.

use serde_json::{Map, Value, json};

/// A compose file around one key.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) document: Value,
    /// The names and numbers that lead to the key.
    pub(crate) place: Vec<String>,
}

/// `first`: only the form that the loader makes.
pub(crate) fn samples(first: bool) -> Vec<Sample> {
    let table = serde_json::from_str(include_str!("keys.json")).expect("keys.json is JSON");
    of_object(&table, "top", first)
}

fn of_object(table: &Value, name: &str, first: bool) -> Vec<Sample> {
    let object = table[name].as_object().expect("an object of keys.json");
    let mut made = Vec::new();
    for (names, values) in object.iter().filter(|(names, _)| !names.is_empty()) {
        let values = values.as_array().expect("samples are a list");
        let values = values.iter().take(if first { 1 } else { usize::MAX });
        let values: Vec<Sample> = values.flat_map(|value| of_value(table, value, first)).collect();
        for (key, value) in names
            .split(' ')
            .flat_map(|key| values.iter().map(move |value| (key, value)))
        {
            let mut document = object.get("").cloned().unwrap_or_else(|| json!({}));
            document[key] = value.document.clone();
            let place = [&[key.to_owned()], value.place.as_slice()].concat();
            made.push(Sample { document, place });
        }
    }
    made
}

fn of_value(table: &Value, value: &Value, first: bool) -> Vec<Sample> {
    if let Some(name) = value.get("$").and_then(Value::as_str) {
        return of_object(table, name, first);
    }
    let around = |key: &str, inner: &Value, wrap: &dyn Fn(Value) -> Value| {
        let all = of_value(table, inner, first).into_iter();
        let all = all.map(|Sample { document, mut place }| {
            if !place.is_empty() {
                place.insert(0, key.to_owned());
            }
            Sample {
                document: wrap(document),
                place,
            }
        });
        all.collect()
    };
    match value {
        Value::Array(items) if items.len() == 1 => around("0", &items[0], &|item| json!([item])),
        Value::Object(entries) if entries.len() == 1 => {
            let (key, inner) = entries.iter().next().expect("there is one");
            around(key, inner, &|inner| Map::from_iter([(key.clone(), inner)]).into())
        }
        _ => vec![Sample {
            document: value.clone(),
            place: Vec::new(),
        }],
    }
}
