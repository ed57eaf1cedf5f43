//! Functions, versions and aliases, as deployers see them.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod node;

use std::collections::BTreeSet;
use std::sync::Arc;

use invoker::{Alias, AliasName, InvokerError, Registry, Select, Weighted};
use model::Digest;
use node::held::Held;
use node::{fn_path, spec};
use storage::{RedbStore, Store};

fn store() -> Arc<dyn Store> {
    Arc::new(RedbStore::in_memory(storage::Config::default()).unwrap())
}

fn live(registry: &Registry) -> Digest {
    registry
        .resolve(&fn_path("app/f"), &Select::Live)
        .unwrap()
        .version
}

#[tokio::test]
async fn deploying_moves_live_and_a_rollback_moves_it_back() {
    let registry = Registry::open(store()).await.unwrap();
    let path = fn_path("app/f");
    assert!(matches!(
        registry.resolve(&path, &Select::Live),
        Err(InvokerError::UnknownFunction(_))
    ));
    let first = registry.deploy(&path, spec(1)).await.unwrap();
    let second = registry.deploy(&path, spec(2)).await.unwrap();
    assert!(first.is_new && second.is_new && live(&registry) == second.version);
    let again = registry.deploy(&path, spec(2)).await.unwrap();
    assert_eq!((again.version, again.is_new), (second.version, false));
    registry.roll_back(&path).await.unwrap();
    assert_eq!(
        live(&registry),
        first.version,
        "deploying it again was not a move"
    );
    let nothing = registry.roll_back(&path).await;
    assert!(
        matches!(nothing, Err(InvokerError::NothingToRollBackTo(_))),
        "{nothing:?}"
    );
    let old = Select::Version(second.version);
    assert_eq!(
        registry.resolve(&path, &old).unwrap().version,
        second.version
    );
    assert_eq!(registry.function(&path).unwrap().versions.len(), 2);
}

#[tokio::test]
async fn deploys_that_race_all_succeed_and_one_is_live() {
    let store = store();
    let registry = Registry::open(store.clone()).await.unwrap();
    let deploys = (0..20).map(|n| {
        let (registry, path) = (registry.clone(), fn_path("app/f"));
        tokio::spawn(async move { registry.deploy(&path, spec(n)).await.unwrap().version })
    });
    let done = futures::future::join_all(deploys).await;
    let versions: BTreeSet<_> = done.into_iter().map(|done| done.unwrap()).collect();
    assert_eq!(versions.len(), 20);
    let function = registry.function(&fn_path("app/f")).unwrap();
    assert_eq!(
        function.versions.keys().copied().collect::<BTreeSet<_>>(),
        versions
    );
    assert!(versions.contains(&live(&registry)));
    assert_eq!(function.pointers.previous.len(), 19, "each was live once");
    let reopened = Registry::open(store).await.unwrap();
    assert_eq!(reopened.function(&fn_path("app/f")).unwrap(), function);
}

#[tokio::test]
async fn another_node_on_the_same_store_follows() {
    let store = store();
    let ours = Registry::open(store.clone()).await.unwrap();
    let theirs = Registry::open(store).await.unwrap();
    let first = ours.deploy(&fn_path("app/f"), spec(1)).await.unwrap();
    // Theirs sees its own change only after all earlier ones.
    theirs.deploy(&fn_path("app/g"), spec(2)).await.unwrap();
    assert_eq!(live(&theirs), first.version);
    let names: Vec<_> = theirs.list().iter().map(|f| f.path.to_string()).collect();
    assert_eq!(names, ["app/f", "app/g"]);
}

/// Brings a registry up to date: it sees its own change only after all earlier ones.
async fn follow(registry: &Registry) {
    registry
        .deploy(&fn_path("app/other"), spec(99))
        .await
        .unwrap();
    registry.delete(&fn_path("app/other")).await.unwrap();
}

async fn what_is_done_at_one_is_seen_at_the_other(store: Arc<dyn Store>) {
    let ours = Registry::open(store.clone()).await.unwrap();
    let theirs = Registry::open(store).await.unwrap();
    let path = fn_path("app/f");
    let first = ours.deploy(&path, spec(1)).await.unwrap().version;
    let second = ours.deploy(&path, spec(2)).await.unwrap().version;
    let beta: AliasName = "beta".parse().unwrap();
    ours.set_alias(&path, &beta, Alias::to(first))
        .await
        .unwrap();
    follow(&theirs).await;
    assert_eq!(live(&theirs), second);
    let select = Select::Alias(beta.clone());
    assert_eq!(theirs.resolve(&path, &select).unwrap().version, first);
    ours.roll_back(&path).await.unwrap();
    theirs
        .set_alias(&path, &beta, Alias::to(second))
        .await
        .unwrap();
    follow(&ours).await;
    assert_eq!((live(&ours), live(&theirs)), (first, first));
    assert_eq!(ours.resolve(&path, &select).unwrap().version, second);
    ours.delete_alias(&path, &beta).await.unwrap();
    follow(&theirs).await;
    assert!(theirs.resolve(&path, &select).is_err());
    ours.delete(&path).await.unwrap();
    follow(&theirs).await;
    assert!(matches!(
        theirs.function(&path),
        Err(InvokerError::UnknownFunction(_))
    ));
}

#[tokio::test]
async fn another_node_sees_deploys_aliases_rollbacks_and_deletes() {
    what_is_done_at_one_is_seen_at_the_other(store()).await;
}

#[tokio::test]
async fn a_watch_that_breaks_at_every_change_is_begun_anew_from_what_is_there() {
    // A deploy is two events: who watches is cut off by each.
    let config = storage::Config {
        watch_buffer_events: 1,
        ..storage::Config::default()
    };
    let store = Arc::new(RedbStore::in_memory(config).unwrap());
    what_is_done_at_one_is_seen_at_the_other(store).await;
}

#[tokio::test]
async fn what_another_node_deployed_an_instant_ago_is_found() {
    let store = store();
    let ours = Registry::open(store.clone()).await.unwrap();
    let late = Held::with_late_events(store);
    let theirs = Registry::open(late.clone()).await.unwrap();
    let path = fn_path("app/f");
    let version = ours.deploy(&path, spec(1)).await.unwrap().version;
    let select = Select::Version(version);
    assert!(matches!(
        theirs.resolve(&path, &select),
        Err(InvokerError::UnknownFunction(_))
    ));
    // It waits for what is under way, and for nothing else.
    let (found, ()) = tokio::join!(theirs.find(&path, &select), async {
        tokio::task::yield_now().await;
        late.go.add_permits(100);
    });
    assert_eq!(found.unwrap().version, version);
    let unknown = Select::Version(Digest::of(b"x"));
    assert!(matches!(
        theirs.find(&path, &unknown).await,
        Err(InvokerError::UnknownVersion { .. })
    ));
    assert!(matches!(
        theirs.find(&fn_path("app/g"), &Select::Live).await,
        Err(InvokerError::UnknownFunction(_))
    ));
}

#[tokio::test]
async fn an_alias_shares_calls_out_and_points_only_at_what_is_there() {
    let registry = Registry::open(store()).await.unwrap();
    let path = fn_path("app/f");
    let one = registry.deploy(&path, spec(1)).await.unwrap().version;
    let two = registry.deploy(&path, spec(2)).await.unwrap().version;
    let beta: AliasName = "beta".parse().unwrap();
    let targets = vec![
        Weighted {
            version: one,
            weight: 1,
        },
        Weighted {
            version: two,
            weight: 1,
        },
    ];
    registry
        .set_alias(&path, &beta, Alias::new(targets).unwrap())
        .await
        .unwrap();
    let select = Select::Alias(beta.clone());
    let seen: BTreeSet<_> = (0..200)
        .map(|_| registry.resolve(&path, &select).unwrap().version)
        .collect();
    assert_eq!(seen, BTreeSet::from([one, two]));

    let nowhere = registry
        .set_alias(&path, &beta, Alias::to(Digest::of(b"x")))
        .await;
    assert!(
        matches!(nowhere, Err(InvokerError::UnknownVersion { .. })),
        "{nowhere:?}"
    );
    registry.delete_alias(&path, &beta).await.unwrap();
    let gone = registry.resolve(&path, &select);
    assert!(
        matches!(gone, Err(InvokerError::UnknownAlias { .. })),
        "{gone:?}"
    );
    let live = registry.delete_alias(&path, &AliasName::live()).await;
    assert!(
        matches!(live, Err(InvokerError::LiveIsNeeded(_))),
        "{live:?}"
    );
}

#[tokio::test]
async fn a_deleted_function_is_gone_and_can_be_deployed_anew() {
    let store = store();
    let registry = Registry::open(store.clone()).await.unwrap();
    let path = fn_path("app/f");
    for n in 0..5 {
        registry.deploy(&path, spec(n)).await.unwrap();
    }
    registry.deploy(&fn_path("app/f2"), spec(9)).await.unwrap();
    registry.delete(&path).await.unwrap();
    assert!(matches!(
        registry.function(&path),
        Err(InvokerError::UnknownFunction(_))
    ));
    assert!(matches!(
        registry.delete(&path).await,
        Err(InvokerError::UnknownFunction(_))
    ));
    assert!(registry.function(&fn_path("app/f2")).is_ok());
    let left = store
        .range(storage::Range::prefix("fn/app/f/"))
        .await
        .unwrap();
    assert!(left.entries.is_empty(), "{left:?}");
    registry.deploy(&path, spec(1)).await.unwrap();
    assert_eq!(registry.function(&path).unwrap().versions.len(), 1);
}

#[tokio::test]
async fn limits_out_of_range_are_refused() {
    let registry = Registry::open(store()).await.unwrap();
    let mut spec = spec(1);
    spec.settings.limits.deadline_ms = 0;
    let refused = registry.deploy(&fn_path("app/f"), spec).await;
    assert!(
        matches!(refused, Err(InvokerError::Limits(_))),
        "{refused:?}"
    );
}
