//! What manifests say, and how bad ones are refused.

use proptest::prelude::*;

use super::*;

const FULL: &str = r#"
app = "shop"

[[function]]
name = "hello"
kind = "command"
artifact = "build/hello.wasm"
source = "hello"
build = "make"
args = ["--verbose"]
env = { GREETING = "hello" }
limits = { deadline_ms = 1000, attempts_max = 5 }
routes = ["/hello", "/greet/"]

[[function]]
name = "thumb"
artifact = "thumb.wasm"
"#;

fn problems(text: &str) -> Vec<String> {
    match Manifest::parse(text) {
        Ok(manifest) => panic!("accepted: {manifest:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn check(text: &str, expected: &str) {
    let found = problems(text);
    assert!(
        found.iter().any(|problem| problem.contains(expected)),
        "expected {expected:?} in {found:?}"
    );
}

fn function(body: &str) -> String {
    format!("app = \"a\"\n[[function]]\nname = \"f\"\nartifact = \"f.wasm\"\n{body}")
}

#[test]
fn every_key_is_read() {
    let manifest = Manifest::parse(FULL).unwrap();
    assert_eq!(manifest.app.as_str(), "shop");
    let [hello, thumb] = &manifest.functions[..] else {
        panic!("{manifest:?}");
    };
    assert_eq!(hello.kind, Some(Kind::Command));
    assert_eq!(hello.artifact, "build/hello.wasm");
    assert_eq!(hello.source.as_deref(), Some("hello"));
    assert_eq!(hello.build.as_deref(), Some("make"));
    assert_eq!(hello.settings.args, ["--verbose"]);
    assert_eq!(hello.settings.env["GREETING"], "hello");
    assert_eq!(hello.settings.limits.deadline_ms, 1000);
    assert_eq!(hello.settings.limits.attempts_max, 5);
    assert_eq!(hello.settings.limits.queue_max, Limits::default().queue_max);
    assert_eq!(hello.routes, ["/hello", "/greet/"]);
    assert_eq!(thumb.kind, None);
    assert_eq!(thumb.settings, Settings::default());
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    check(
        "ap = \"shop\"",
        "line 1: unknown key `ap`: did you mean `app`?",
    );
    check(
        &function("artefact = 1"),
        "line 5: unknown key `artefact`: did you mean `artifact`?",
    );
    check(
        &function("[function.limits]\ndeadline = 5"),
        "line 6: unknown key `deadline`: did you mean `deadline_ms`?",
    );
    check(&function("xyzzy = 5"), "known here are `name`, `kind`");
}

#[test]
fn every_unknown_key_is_reported_at_once() {
    assert_eq!(problems(&function("kin = 1\nruotes = []")).len(), 2);
}

#[test]
fn bad_values_are_refused_with_their_line() {
    check("app = \"Shop\"\n", "line 1: `Shop` is not a name");
    check(&function("kind = \"batch\""), "line 5: unknown variant");
    check(&function("args = 5"), "line 5: invalid type");
    check(
        &function("limits = { deadline_ms = 0 }"),
        "line 5: limit `deadline_ms` is 0",
    );
    check(&function("limits = { queue_max = -1 }"), "line 5: ");
    check(
        &function("env = { \"A=B\" = \"c\" }"),
        "cannot name a variable",
    );
    check(&function("args = [\"a\\u0000b\"]"), "zero byte");
    check("app = \"a\"", "no function");
    check("app = ", "line 1: ");
    check(
        &format!(
            "{}\n[[function]]\nname = \"f\"\nartifact = \"g\"",
            function("")
        ),
        "line 7: function `f` is written twice",
    );
    check(
        "[[function]]\nname = \"f\"\nartifact = \"f\"",
        "missing field `app`",
    );
    check(
        "app = \"a\"\n[[function]]\nname = \"f\"\nartifact = \"\"",
        "`artifact` is empty",
    );
}

#[test]
fn routes_are_plain_path_prefixes() {
    for route in ["hello", "/a b", "/../x", "/a?b", "/%2e", "//x", "/é"] {
        check(
            &function(&format!("routes = [\"{route}\"]")),
            "is not a route",
        );
    }
    check(&function("routes = [\"/a\", \"/a\"]"), "written twice");
    assert!(Manifest::parse(&function("routes = [\"/\"]")).is_ok());
}

#[test]
fn grants_are_read_and_bad_ones_refused_with_their_line() {
    let allow = |grants: &str| function(&format!("[function.allow]\n{grants}"));
    let text = "call = [\"b/*\"]\negress = [\"api.example.com:443\", \"10.0.0.0/8:80\"]";
    let manifest = Manifest::parse(&allow(text)).unwrap();
    let granted = &manifest.functions[0].settings.allow;
    assert_eq!(granted.call, ["b/*".parse().unwrap()]);
    let egress = ["api.example.com:443", "10.0.0.0/8:80"].map(|text| text.parse().unwrap());
    assert_eq!(granted.egress, egress);
    check(
        &allow("call = [\"A\"]"),
        "line 6: `A` does not name functions",
    );
    check(
        &allow("egress = [\"localhost\"]"),
        "line 6: `localhost` names no hosts: add a port",
    );
    check(&allow("egres = []"), "did you mean `egress`?");
}

#[test]
fn too_much_of_anything_is_refused() {
    check(&" ".repeat(BYTES_MAX + 1), "too long");
    let args = vec!["\"a\""; ENTRIES_MAX + 1].join(",");
    check(&function(&format!("args = [{args}]")), "too many");
    let text = "x".repeat(TEXT_BYTES_MAX + 1);
    check(&function(&format!("build = \"{text}\"")), "too long");
    let name = "x".repeat(1 << 19);
    let shown = problems(&format!("app = \"{name}\"\n{name} = 1"));
    assert!(shown.iter().all(|line| line.len() < 200), "{}", shown.len());
    let deep = "[".repeat(1 << 19);
    check(&format!("app = {deep}"), "line 1: ");
    let functions = "[[function]]\nname = \"f\"\nartifact = \"f\"\n".repeat(FUNCTIONS_MAX + 1);
    check(&format!("app = \"a\"\n{functions}"), "are too many");
}

#[test]
fn the_schema_and_the_known_keys_are_the_same() {
    let schema = Manifest::schema();
    let keys = |pointer: &str| -> BTreeSet<String> {
        let object = schema.pointer(pointer).and_then(|v| v.as_object());
        object.unwrap().keys().cloned().collect()
    };
    let known = |known: &[(&str, keys::Shape)]| -> BTreeSet<String> {
        known.iter().map(|(name, _)| (*name).to_owned()).collect()
    };
    let keys::Shape::Table(top) = raw::SHAPE else {
        panic!("the top is a table");
    };
    let keys::Shape::Tables(function) = top[1].1 else {
        panic!("functions are tables");
    };
    let limits = function.iter().find_map(|(name, shape)| match shape {
        keys::Shape::Table(limits) if *name == "limits" => Some(*limits),
        _ => None,
    });
    assert_eq!(keys("/properties"), known(top));
    assert_eq!(keys("/$defs/Function/properties"), known(function));
    assert_eq!(keys("/$defs/Limits/properties"), known(limits.unwrap()));
    let model = serde_json::to_value(Limits::default()).unwrap();
    let model: BTreeSet<_> = model.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys("/$defs/Limits/properties"), model);
}

#[test]
fn the_schema_and_the_model_bound_limits_alike() {
    let schema = Manifest::schema();
    let limits = schema.pointer("/$defs/Limits/properties").unwrap();
    for (name, limit) in limits.as_object().unwrap() {
        let bound = |key: &str| limit.get(key).and_then(serde_json::Value::as_u64);
        let accepted = |value: u64| {
            Manifest::parse(&function(&format!("limits = {{ {name} = {value} }}"))).is_ok()
        };
        let (least, most) = (bound("minimum").unwrap_or(0), bound("maximum").unwrap());
        assert!(accepted(least) && accepted(most), "{name}");
        assert!(!accepted(most + 1), "{name}");
        assert!(least == 0 || !accepted(least - 1), "{name}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        let _ = Manifest::parse(&text);
    }

    #[test]
    fn no_damage_to_a_manifest_makes_the_reader_panic(
        at in 0..FULL.len(),
        drop in 0usize..40,
        put in "[\\[\\]{}=\"'.\\\\#\\n a-z0-9_é\\u{0}-]{0,12}",
    ) {
        let end = (at + drop).min(FULL.len());
        let text = format!("{}{put}{}", &FULL[..at], &FULL[end..]);
        if let Err(problems) = Manifest::parse(&text) {
            let lines = text.lines().count() + 1;
            let inside = problems.iter().all(|p| p.line.is_none_or(|line| line <= lines));
            prop_assert!(inside, "{problems}");
            prop_assert!(!problems.to_string().is_empty());
        }
    }
}
