//! Apps, functions, versions and aliases.

use std::time::Instant;

use api::v1::{
    Alias, AliasSet, App, Apps, Deploy, Deployed, Function, Functions, Rollback, Target, Version,
    Versions,
};
use api::{Code, Problem};
use axum::extract::State;
use bytes::Bytes;
use http::StatusCode;
use invoker::{AliasName, Select, Weighted};
use model::{Digest, VersionSpec};

use super::AdminState;
use super::extract::{Json, Path, function_path};
use crate::failure::Failure;

/// Every app.
#[utoipa::path(get, path = "/v1/apps", operation_id = "listApps", tag = "functions",
    responses((status = 200, body = Apps)))]
pub(super) async fn apps(State(shared): AdminState) -> Json<Apps> {
    let mut apps: Vec<App> = Vec::new();
    for function in shared.registry.list() {
        let name = function.path.app.as_str();
        match apps.last_mut() {
            Some(app) if app.name == name => app.functions += 1,
            _ => apps.push(App {
                name: name.to_owned(),
                functions: 1,
            }),
        }
    }
    Json(Apps { apps })
}

/// The functions of every app.
#[utoipa::path(get, path = "/v1/functions", operation_id = "listFunctions", tag = "functions",
    responses((status = 200, body = Functions)))]
pub(super) async fn functions(State(shared): AdminState) -> Json<Functions> {
    let functions = shared
        .registry
        .list()
        .iter()
        .filter_map(|f| view(f))
        .collect();
    Json(Functions { functions })
}

/// The functions of one app.
#[utoipa::path(get, path = "/v1/apps/{app}/functions", operation_id = "listFunctionsOfApp",
    tag = "functions", params(("app" = String, Path, description = "App")),
    responses((status = 200, body = Functions), (status = 404, body = Problem)))]
pub(super) async fn functions_of(
    State(shared): AdminState,
    Path(app): Path<String>,
) -> Result<Json<Functions>, Failure> {
    let app: model::AppName = app.parse()?;
    let all = shared.registry.list();
    let functions: Vec<_> = all
        .iter()
        .filter(|f| f.path.app == app)
        .filter_map(|f| view(f))
        .collect();
    if functions.is_empty() {
        return Err(Failure::new(
            Code::AppNotFound,
            format!("there is no app `{app}`"),
        ));
    }
    Ok(Json(Functions { functions }))
}

/// One function.
#[utoipa::path(get, path = "/v1/apps/{app}/functions/{function}", operation_id = "getFunction",
    tag = "functions",
    params(("app" = String, Path, description = "App"),
        ("function" = String, Path, description = "Function")),
    responses((status = 200, body = Function), (status = 404, body = Problem)))]
pub(super) async fn function(
    State(shared): AdminState,
    Path(names): Path<(String, String)>,
) -> Result<Json<Function>, Failure> {
    let path = function_path(names)?;
    let known = shared.registry.function(&path)?;
    let gone = || {
        Failure::new(
            Code::FunctionNotFound,
            format!("`{path}` has no live version"),
        )
    };
    Ok(Json(view(&known).ok_or_else(gone)?))
}

/// Deletes a function with all its versions.
#[utoipa::path(delete, path = "/v1/apps/{app}/functions/{function}",
    operation_id = "deleteFunction", tag = "functions",
    params(("app" = String, Path, description = "App"),
        ("function" = String, Path, description = "Function")),
    responses((status = 204, description = "It is deleted; what runs may end"),
        (status = 404, body = Problem)))]
pub(super) async fn delete(
    State(shared): AdminState,
    Path(names): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    let path = function_path(names)?;
    let versions: Vec<Digest> = shared
        .registry
        .function(&path)?
        .versions
        .keys()
        .copied()
        .collect();
    shared.registry.delete(&path).await?;
    for version in versions {
        shared.executor.forget(&version);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The versions of a function, the latest first.
#[utoipa::path(get, path = "/v1/apps/{app}/functions/{function}/versions",
    operation_id = "listVersions", tag = "functions",
    params(("app" = String, Path, description = "App"),
        ("function" = String, Path, description = "Function")),
    responses((status = 200, body = Versions), (status = 404, body = Problem)))]
pub(super) async fn versions(
    State(shared): AdminState,
    Path(names): Path<(String, String)>,
) -> Result<Json<Versions>, Failure> {
    let known = shared.registry.function(&function_path(names)?)?;
    let mut versions: Vec<Version> = known
        .versions
        .iter()
        .map(|(digest, version)| version_view(&known, digest, version))
        .collect();
    versions.sort_by_key(|version| std::cmp::Reverse(version.deployed_unix_ms));
    Ok(Json(Versions { versions }))
}

/// Makes a version of an uploaded artifact and moves an alias to it.
#[utoipa::path(post, path = "/v1/apps/{app}/functions/{function}/versions",
    operation_id = "deploy", tag = "functions", request_body = Deploy,
    params(("app" = String, Path, description = "App"),
        ("function" = String, Path, description = "Function")),
    responses((status = 201, body = Deployed), (status = 400, body = Problem),
        (status = 404, body = Problem, description = "The artifact was not uploaded"),
        (status = 422, body = Problem, description = "The artifact cannot be a function"),
        (status = 507, body = Problem)))]
pub(super) async fn deploy(
    State(shared): AdminState,
    Path(names): Path<(String, String)>,
    Json(deploy): Json<Deploy>,
) -> Result<(StatusCode, Json<Deployed>), Failure> {
    let path = function_path(names)?;
    let alias = alias_name(deploy.alias.as_deref())?;
    let artifact = digest(&deploy.artifact)?;
    let mut settings = model::Settings::try_from(deploy.settings)
        .map_err(|error| Failure::new(Code::InvalidSettings, error.to_string()))?;
    if deploy.kind == api::v1::Kind::Lambda {
        name_lambda(&path, &mut settings);
    }
    check_settings(&settings)?;
    check_reuse(deploy.kind.into(), &settings)?;
    check_routes(&deploy.routes)?;
    super::files::check(&shared, settings.files.as_ref()).await?;
    let spec = VersionSpec {
        kind: deploy.kind.into(),
        artifact,
        settings,
    };
    let bytes = uploaded(&shared, &artifact).await?;
    let mut layers = Vec::new();
    for layer in &spec.settings.layers {
        layers.push(uploaded(&shared, layer).await?);
    }
    let begun = Instant::now();
    let prepared = shared.executor.prepare(&spec, bytes, layers).await;
    let prepared = prepared.map_err(|error| Failure::of_prepare(&error))?;
    let prepare_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let deployed = shared
        .registry
        .deploy_to(&path, spec, &alias, deploy.routes)
        .await?;
    tracing::info!(function = %path, version = %deployed.version.short(), %alias, "deployed");
    Ok((
        StatusCode::CREATED,
        Json(Deployed {
            app: path.app.to_string(),
            function: path.function.to_string(),
            version: deployed.version.to_string(),
            alias: alias.to_string(),
            cached: prepared.cached,
            code_bytes: prepared.code_bytes,
            image_bytes: prepared.image_bytes,
            prepare_ms,
            note: prepared.note,
        }),
    ))
}

/// A Lambda runtime learns its function's name from its environment, which its version holds.
fn name_lambda(path: &model::FunctionPath, settings: &mut model::Settings) {
    const NAME: &str = "AWS_LAMBDA_FUNCTION_NAME";
    let name = || crate::lambda::function_name(path);
    settings.env.entry(NAME.to_owned()).or_insert_with(name);
}

/// The bytes of what was uploaded under `digest`.
async fn uploaded(shared: &crate::shared::Shared, digest: &Digest) -> Result<Bytes, Failure> {
    let bytes = shared.blobs.get(digest).await;
    let bytes = bytes.map_err(|error| Failure::of_storage(&error))?;
    bytes.ok_or_else(|| Failure::new(Code::ArtifactNotFound, format!("upload {digest} first")))
}

/// Points an alias, new or not.
#[utoipa::path(put, path = "/v1/apps/{app}/functions/{function}/aliases/{alias}",
    operation_id = "setAlias", tag = "functions", request_body = AliasSet,
    params(("app" = String, Path, description = "App"),
        ("function" = String, Path, description = "Function"),
        ("alias" = String, Path, description = "Alias")),
    responses((status = 200, body = Alias), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn set_alias(
    State(shared): AdminState,
    Path((app, function, alias)): Path<(String, String, String)>,
    Json(set): Json<AliasSet>,
) -> Result<Json<Alias>, Failure> {
    let path = function_path((app, function))?;
    let name = alias_name(Some(&alias))?;
    let weighted = |target: &Target| {
        let version = digest(&target.version)?;
        Ok(Weighted {
            version,
            weight: target.weight,
        })
    };
    let targets = set
        .targets
        .iter()
        .map(weighted)
        .collect::<Result<Vec<_>, Failure>>()?;
    let alias = invoker::Alias::new(targets)?;
    shared
        .registry
        .set_alias(&path, &name, alias.clone())
        .await?;
    Ok(Json(alias_view(name.as_str(), &alias)))
}

/// Takes an alias away; `live` stays.
#[utoipa::path(delete, path = "/v1/apps/{app}/functions/{function}/aliases/{alias}",
    operation_id = "deleteAlias", tag = "functions",
    params(("app" = String, Path, description = "App"),
        ("function" = String, Path, description = "Function"),
        ("alias" = String, Path, description = "Alias")),
    responses((status = 204, description = "It is gone"), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn delete_alias(
    State(shared): AdminState,
    Path((app, function, alias)): Path<(String, String, String)>,
) -> Result<StatusCode, Failure> {
    let path = function_path((app, function))?;
    shared
        .registry
        .delete_alias(&path, &alias_name(Some(&alias))?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Points `live` at what it was before its last move.
#[utoipa::path(post, path = "/v1/apps/{app}/functions/{function}/rollback",
    operation_id = "rollback", tag = "functions", request_body = Rollback,
    params(("app" = String, Path, description = "App"),
        ("function" = String, Path, description = "Function")),
    responses((status = 200, body = Alias), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn rollback(
    State(shared): AdminState,
    Path(names): Path<(String, String)>,
    Json(rollback): Json<Rollback>,
) -> Result<Json<Alias>, Failure> {
    let path = function_path(names)?;
    let name = alias_name(rollback.alias.as_deref())?;
    if name != AliasName::live() {
        let detail = "only `live` remembers where it pointed: set other aliases instead";
        return Err(Failure::new(Code::InvalidAlias, detail));
    }
    let alias = shared.registry.roll_back(&path).await?;
    tracing::info!(function = %path, "rolled back");
    Ok(Json(alias_view(name.as_str(), &alias)))
}

/// Longest route.
const ROUTE_BYTES_MAX: usize = 256;
/// Most variables, most arguments, and most routes, of one function.
const ENTRIES_MAX: usize = 256;
/// Bytes of all variables and arguments together.
const ENTRIES_BYTES_MAX: usize = 128 << 10;

fn check_routes(routes: &[String]) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%');
    let fits = |route: &String| {
        let short = route.len() <= ROUTE_BYTES_MAX;
        short && route.starts_with('/') && !route.contains("//") && route.bytes().all(plain)
    };
    if routes.len() <= ENTRIES_MAX && routes.iter().all(fits) {
        return Ok(());
    }
    let detail = format!(
        "routes are at most {ENTRIES_MAX} path prefixes such as `/hello`, of at most \
         {ROUTE_BYTES_MAX} plain characters"
    );
    Err(Failure::new(Code::InvalidSettings, detail))
}

/// A command has ended with its call, and a component has an instance for each.
fn check_reuse(kind: model::Kind, settings: &model::Settings) -> Result<(), Failure> {
    if settings.reuse == model::Reuse::Fresh || kind == model::Kind::Reactor {
        return Ok(());
    }
    let detail = format!("`reuse = \"app\"` is for reactors, not for kind {kind}");
    Err(Failure::new(Code::InvalidSettings, detail))
}

fn check_settings(settings: &model::Settings) -> Result<(), Failure> {
    let refuse = |detail: String| Err(Failure::new(Code::InvalidSettings, detail));
    if let Err(error) = settings.limits.check() {
        return refuse(error.to_string());
    }
    if settings.args.len().max(settings.env.len()) > ENTRIES_MAX {
        return refuse(format!(
            "at most {ENTRIES_MAX} arguments and as many variables"
        ));
    }
    let env = settings.env.iter().flat_map(|(key, value)| [key, value]);
    let bytes: usize = settings
        .args
        .iter()
        .chain(env.clone())
        .map(String::len)
        .sum();
    if bytes > ENTRIES_BYTES_MAX {
        let max = ENTRIES_BYTES_MAX;
        return refuse(format!(
            "arguments and variables have {bytes} bytes: at most {max}"
        ));
    }
    if settings
        .args
        .iter()
        .chain(env)
        .any(|text| text.contains('\0'))
    {
        return refuse("an argument or variable holds a NUL".to_owned());
    }
    let malformed = settings
        .env
        .keys()
        .find(|key| key.is_empty() || key.contains('='));
    match malformed {
        Some(key) => refuse(format!("`{key}` is not the name of a variable")),
        None => Ok(()),
    }
}

fn alias_name(text: Option<&str>) -> Result<AliasName, Failure> {
    Ok(text.map_or(Ok(AliasName::live()), str::parse)?)
}

pub(super) fn digest(text: &str) -> Result<Digest, Failure> {
    text.parse()
        .map_err(|error: model::DigestError| Failure::new(Code::BadRequest, error.to_string()))
}

fn alias_view(name: &str, alias: &invoker::Alias) -> Alias {
    let targets = alias.targets().iter().map(|target| Target {
        version: target.version.to_string(),
        weight: target.weight,
    });
    Alias {
        name: name.to_owned(),
        targets: targets.collect(),
    }
}

/// None for a function whose `live` points nowhere, which is never called.
fn view(function: &invoker::Function) -> Option<Function> {
    let live = function.pointers.aliases.get(&AliasName::live())?;
    let main = live
        .targets()
        .iter()
        .max_by_key(|target| target.weight)?
        .version;
    let kind = function
        .resolve(&Select::Version(main), 0)
        .ok()?
        .spec
        .kind
        .into();
    let aliases = &function.pointers.aliases;
    Some(Function {
        app: function.path.app.to_string(),
        name: function.path.function.to_string(),
        kind,
        live: main.to_string(),
        versions: function.versions.len(),
        aliases: aliases
            .iter()
            .map(|(name, alias)| alias_view(name.as_str(), alias))
            .collect(),
        deployed_unix_ms: function.pointers.changed_ms,
    })
}

fn version_view(
    function: &invoker::Function,
    digest: &Digest,
    version: &invoker::Version,
) -> Version {
    let points = |alias: &invoker::Alias| alias.targets().iter().any(|t| t.version == *digest);
    let aliases = function.pointers.aliases.iter();
    Version {
        digest: digest.to_string(),
        kind: version.spec.kind.into(),
        artifact: version.spec.artifact.to_string(),
        settings: version.spec.settings.clone().into(),
        deployed_unix_ms: version.created_ms,
        aliases: aliases
            .filter(|(_, a)| points(a))
            .map(|(name, _)| name.to_string())
            .collect(),
    }
}
