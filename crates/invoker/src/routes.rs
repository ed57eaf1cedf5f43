//! Routes: path prefixes that lead to functions, beside their names. Pure.

use model::FunctionPath;

/// Every route, the longest first.
#[derive(Debug, Default)]
pub(crate) struct Routes(Vec<(String, FunctionPath)>);

impl Routes {
    pub fn new<'a>(functions: impl Iterator<Item = (&'a FunctionPath, &'a [String])>) -> Self {
        let mut all: Vec<_> = functions
            .flat_map(|(path, routes)| {
                routes
                    .iter()
                    .map(|route| (bare(route).to_owned(), path.clone()))
            })
            .collect();
        all.sort_by(|(a, a_path), (b, b_path)| (b.len(), a, a_path).cmp(&(a.len(), b, b_path)));
        Self(all)
    }

    /// The function that a path with its query leads to, and the length of the route in it.
    pub fn lead(&self, path_and_query: &str) -> Option<(FunctionPath, usize)> {
        let leads = |route: &str| {
            let rest = path_and_query.strip_prefix(route);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        };
        let (route, path) = self.0.iter().find(|(route, _)| leads(route))?;
        Some((path.clone(), route.len()))
    }

    /// The first of `routes` that leads to a function other than `path`, and that function.
    pub fn taken(&self, routes: &[String], path: &FunctionPath) -> Option<(String, FunctionPath)> {
        routes.iter().find_map(|route| {
            let is_taken =
                |(known, by): &&(String, FunctionPath)| known == bare(route) && by != path;
            let (_, by) = self.0.iter().find(is_taken)?;
            Some((route.clone(), by.clone()))
        })
    }
}

/// A route without the slash at its end: `/a/` and `/a` are one route.
fn bare(route: &str) -> &str {
    route.strip_suffix('/').unwrap_or(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let functions: [(FunctionPath, Vec<String>); 2] = [
            ("a/short".parse().expect("a path"), vec!["/api".into()]),
            (
                "a/long".parse().expect("a path"),
                vec!["/api/v1/".into(), "/x".into()],
            ),
        ];
        Routes::new(functions.iter().map(|(path, routes)| (path, &routes[..])))
    }

    #[test]
    fn the_longest_route_leads_and_only_at_whole_segments() {
        let check = |uri: &str, expected: Option<(&str, usize)>| {
            let found = routes().lead(uri);
            let found = found.map(|(path, length)| (path.to_string(), length));
            assert_eq!(
                found,
                expected.map(|(path, length)| (path.to_owned(), length)),
                "{uri}"
            );
        };
        check("/api", Some(("a/short", 4)));
        check("/api/v2", Some(("a/short", 4)));
        check("/api/v1", Some(("a/long", 7)));
        check("/api/v1/y?q", Some(("a/long", 7)));
        check("/x?q", Some(("a/long", 2)));
        check("/apiary", None);
        check("/", None);
    }

    #[test]
    fn a_route_of_another_function_is_taken() {
        let own: FunctionPath = "a/short".parse().expect("a path");
        assert!(routes().taken(&["/api/".into()], &own).is_none());
        let taken = routes().taken(&["/free".into(), "/x/".into()], &own);
        assert_eq!(
            taken.map(|(route, by)| (route, by.to_string())),
            Some(("/x/".into(), "a/long".into()))
        );
    }
}
