//! The environment that Lambda promises its runtimes.

use model::{Settings, Snapshot};

use super::ADDRESS;

/// What the function is called where its version does not say so.
const NAME: &str = "function";
/// The region of a version that names none.
const REGION: &str = "us-east-1";
const FUNCTION_NAME: &str = "AWS_LAMBDA_FUNCTION_NAME";
const REGION_NAME: &str = "AWS_REGION";

/// The environment of a version: what Lambda sets, then what the version sets over that. Where the
/// Runtime API is, is not the version's to say.
pub(super) fn of(settings: &Settings) -> Vec<Vec<u8>> {
    let set = |key: &str| settings.env.get(key).map(String::as_str);
    let name = set(FUNCTION_NAME).unwrap_or(NAME);
    let region = set(REGION_NAME).unwrap_or(REGION);
    let initialisation = match settings.snapshot {
        Snapshot::Never => "on-demand",
        Snapshot::Auto | Snapshot::Always => "snap-start",
    };
    let memory_mb = settings.limits.memory_bytes_max >> 20;
    let own = [
        (FUNCTION_NAME, name.to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mb.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", initialisation.to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "dunlin".to_owned()),
        (REGION_NAME, region.to_owned()),
        ("AWS_DEFAULT_REGION", region.to_owned()),
        ("LAMBDA_TASK_ROOT", "/var/task".to_owned()),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime".to_owned()),
        ("_HANDLER", "bootstrap".to_owned()),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("TZ", ":UTC".to_owned()),
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin".to_owned()),
    ];
    let own = own.into_iter();
    let mut all: Vec<(String, String)> = own
        .filter(|(key, _)| set(key).is_none())
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let of_version = settings.env.iter();
    all.extend(of_version.map(|(key, value)| (key.clone(), value.clone())));
    all.retain(|(key, _)| key != RUNTIME_API);
    all.push((RUNTIME_API.to_owned(), ADDRESS.to_string()));
    all.iter()
        .map(|(key, value)| format!("{key}={value}").into_bytes())
        .collect()
}

const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(set: &[(&str, &str)], expected: &[&str]) {
        let mut settings = Settings::default();
        let set = set.iter();
        settings.env = set
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let all = of(&settings);
        for line in expected {
            let found = all.iter().filter(|one| *one == line.as_bytes()).count();
            assert_eq!(found, 1, "{line}");
        }
        let mut names: Vec<_> = all
            .iter()
            .map(|line| line.split(|b| *b == b'=').next())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len(), "each variable is there once");
    }

    #[test]
    fn what_a_version_sets_goes_over_what_lambda_sets() {
        let api = "AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001";
        check(
            &[],
            &[
                api,
                "AWS_LAMBDA_FUNCTION_NAME=function",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256",
                "AWS_DEFAULT_REGION=us-east-1",
                "AWS_LAMBDA_INITIALIZATION_TYPE=snap-start",
            ],
        );
        check(
            &[
                ("AWS_LAMBDA_FUNCTION_NAME", "shop_pay"),
                ("AWS_LAMBDA_RUNTIME_API", "elsewhere"),
                ("AWS_REGION", "eu-west-1"),
                ("_HANDLER", "main"),
                ("OWN", "1"),
            ],
            &[
                api,
                "AWS_LAMBDA_FUNCTION_NAME=shop_pay",
                "AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/shop_pay",
                "AWS_DEFAULT_REGION=eu-west-1",
                "_HANDLER=main",
                "OWN=1",
            ],
        );
    }
}
