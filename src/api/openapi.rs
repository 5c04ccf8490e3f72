//! The OpenAPI document, made from the routes and the views' types.

use utoipa::OpenApi;

use super::routes::Docs;

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Docs::openapi()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::api::routes::table;

    #[test]
    fn every_route_is_in_the_document_and_nothing_else() {
        let document = serde_json::to_value(super::document()).unwrap();
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        let routed: BTreeSet<(String, String)> =
            table().iter().map(|route| (route.method.to_string(), route.path.to_owned())).collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        fn references(value: &serde_json::Value, into: &mut BTreeSet<String>) {
            match value {
                serde_json::Value::Object(map) => {
                    into.extend(map.get("$ref").and_then(|target| target.as_str()).map(str::to_owned));
                    map.values().for_each(|value| references(value, into));
                }
                serde_json::Value::Array(list) => list.iter().for_each(|value| references(value, into)),
                _ => {}
            }
        }
        let document = serde_json::to_value(super::document()).unwrap();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
    }
}
