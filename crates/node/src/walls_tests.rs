//! Modules inside of micro-VMs pass the suite of every back-end.

use super::*;
use model::Kind;
use sandbox::conformance::{Fixture, run};

/// The node's walls, for versions that want both.
struct Both(Walls);

fn both(spec: &VersionSpec) -> VersionSpec {
    let mut spec = spec.clone();
    spec.settings.isolation = Isolation::WasmVm;
    spec
}

#[async_trait]
impl Backend for Both {
    async fn prepare(
        &self,
        spec: &VersionSpec,
        artifact: Bytes,
        layers: Vec<Bytes>,
    ) -> Result<Prepared, PrepareError> {
        self.0.prepare(&both(spec), artifact, layers).await
    }

    async fn load(
        &self,
        spec: &VersionSpec,
        artifacts: &dyn Artifacts,
    ) -> Result<Arc<dyn Program>, LoadError> {
        self.0.load(&both(spec), artifacts).await
    }
}

fn exits() -> Fixture {
    let text = r#"(module (func (export "handle") (result i32) (i32.const 7)))"#;
    Fixture {
        kind: Kind::Reactor,
        artifact: wat::parse_str(text).expect("WebAssembly text").into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_inside_of_micro_vms_conform() {
    if let Some(missing) = micro_vms_missing() {
        assert!(std::env::var_os("REQUIRE_KVM").is_none(), "{missing}");
        eprintln!("left out, since there are no micro-VMs: {missing}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let faaslets = Faaslets::new(faaslet::Config::new(folder.path().join("core")));
    let walls = Walls::new(
        faaslets.expect("engines"),
        (folder.path().to_owned(), u64::MAX),
        Arc::new(Library::empty()),
    );
    let mut fixtures = testkit::reactors();
    fixtures.exit_7 = Some(exits());
    let checks = run(&Both(walls), &fixtures).await;
    let failed: Vec<_> = checks
        .iter()
        .filter_map(|(name, checked)| Some((name, checked.as_ref().err()?)))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(checks.len() >= 15);
}
