//! `/openapi.json` is a description that tools can use.

use std::collections::BTreeSet;

use serde_json::Value;

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "head", "patch", "options"];

fn description() -> Value {
    serde_json::from_str(&gateway::openapi_json()).expect("JSON")
}

fn operations(description: &Value) -> Vec<(String, &Value)> {
    let paths = description["paths"].as_object().expect("paths");
    let of = |(path, item): (&String, &'_ Value)| {
        let item = item.as_object().expect("an item");
        let found = item
            .iter()
            .filter(|(method, _)| METHODS.contains(&method.as_str()));
        found
            .map(|(method, _)| (method.clone(), path.clone()))
            .collect::<Vec<_>>()
    };
    let names: Vec<_> = paths.iter().flat_map(of).collect();
    let operation = |(method, path): (String, String)| {
        let found = &description["paths"][&path][&method];
        (format!("{method} {path}"), found)
    };
    names.into_iter().map(operation).collect()
}

#[test]
fn it_is_version_3_1_and_says_what_it_is() {
    let description = description();
    assert_eq!(description["openapi"], "3.1.0");
    for field in ["title", "version", "description"] {
        assert!(description["info"][field].is_string(), "{field}");
    }
    assert_eq!(
        description["components"]["securitySchemes"]["token"]["scheme"],
        "bearer"
    );
}

#[test]
fn every_operation_has_a_name_of_its_own_and_its_answers() {
    let description = description();
    let operations = operations(&description);
    assert!(operations.len() >= 28, "{}", operations.len());
    let mut ids = BTreeSet::new();
    for (name, operation) in operations {
        let id = operation["operationId"]
            .as_str()
            .unwrap_or_else(|| panic!("{name}"));
        assert!(ids.insert(id.to_owned()), "{id} twice");
        assert!(
            operation["summary"].is_string() || operation["description"].is_string(),
            "{name}"
        );
        let responses = operation["responses"].as_object().expect("responses");
        assert!(
            responses.keys().any(|status| status.starts_with('2')),
            "{name}"
        );
        assert!(responses.contains_key("default"), "{name}");
        for (status, response) in responses {
            assert!(
                !response["description"]
                    .as_str()
                    .unwrap_or_default()
                    .is_empty(),
                "{name} {status}"
            );
            if status.starts_with(['4', '5']) {
                let content = response["content"].as_object().expect("content");
                assert!(
                    content.contains_key("application/problem+json"),
                    "{name} {status}"
                );
            }
        }
    }
}

#[test]
fn every_parameter_of_a_path_is_described() {
    let description = description();
    for (name, operation) in operations(&description) {
        let path = name.split(' ').nth(1).expect("a path");
        let named: BTreeSet<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let parameters = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let in_path = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path");
        let described: BTreeSet<&str> = in_path
            .map(|parameter| parameter["name"].as_str().expect("a name"))
            .collect();
        assert_eq!(named, described, "{name}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let description = description();
    let mut references = Vec::new();
    collect(&description, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(description.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_schema_is_used_or_is_a_problem() {
    let description = description();
    let mut references = Vec::new();
    collect(&description, &mut references);
    let schemas = description["components"]["schemas"]
        .as_object()
        .expect("schemas");
    for name in schemas.keys() {
        let reference = format!("#/components/schemas/{name}");
        assert!(references.contains(&reference), "{name} is used nowhere");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                references.push(reference.clone());
            }
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
