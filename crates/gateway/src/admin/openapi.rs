//! What the description says beside the routes: title, the security scheme, the problem that any
//! route may answer with.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref,
    RefOr, ResponseBuilder,
};

const SCHEME: &str = "token";

/// The frame that routes are added to.
pub(super) fn base() -> OpenApi {
    let license = LicenseBuilder::new()
        .name("Apache-2.0")
        .identifier(Some("Apache-2.0"));
    let info = InfoBuilder::new()
        .title("Dunlin admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Deploy functions, call them, and see what they did. Errors are RFC 9457 problems \
             whose `code` is stable and explained at `/errors/CODE`.",
        ))
        .license(Some(license.build()));
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of the node; needed where it requires tokens.",
        ));
    let components =
        ComponentsBuilder::new().security_scheme(SCHEME, SecurityScheme::Http(bearer.build()));
    OpenApiBuilder::new()
        .info(info.build())
        .components(Some(components.build()))
        .security(Some([
            SecurityRequirement::new(SCHEME, Vec::<String>::new()),
            SecurityRequirement::default(),
        ]))
        .build()
}

/// Gives each operation the problem that it may answer with in any other case, and each problem
/// its media type.
pub(super) fn finish(description: &mut OpenApi) {
    let paths = std::mem::take(&mut description.paths.paths);
    // The router's sign for the rest of a path is not the description's.
    let paths = paths
        .into_iter()
        .map(|(path, item)| (path.replace("{*", "{"), item));
    description.paths.paths = paths.collect();
    for item in description.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.head,
        ];
        for operation in operations.into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            for (status, response) in responses.iter_mut() {
                let RefOr::T(response) = response else {
                    continue;
                };
                let is_problem = status.starts_with(['4', '5']);
                let json = is_problem.then(|| response.content.swap_remove("application/json"));
                if let Some(content) = json.flatten() {
                    response
                        .content
                        .insert(api::PROBLEM_JSON.to_owned(), content);
                }
                if response.description.is_empty() {
                    response.description = if is_problem { "A problem" } else { "Done" }.to_owned();
                }
            }
            responses
                .entry("default".to_owned())
                .or_insert_with(|| RefOr::T(any_problem()));
        }
    }
}

fn any_problem() -> utoipa::openapi::Response {
    let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new()
        .description("Any other problem")
        .content(api::PROBLEM_JSON, content)
        .build()
}
