//! What Lambda's clients call a function: a name, part of an ARN, or an ARN.
//!
//! ```text
//!  APP_FUNCTION                                    [:QUALIFIER]
//!  function:APP_FUNCTION                           [:QUALIFIER]
//!  ACCOUNT:function:APP_FUNCTION                   [:QUALIFIER]
//!  arn:aws:lambda:REGION:ACCOUNT:function:APP_FUNCTION[:QUALIFIER]
//! ```
//!
//! No name of an app or function has a `_`, so the one in `APP_FUNCTION` parts them. Region and
//! account are not looked at: a node has neither.

use invoker::Select;
use model::FunctionPath;

/// The account and region of a node's ARNs: of the form that clients expect, and nobody's.
const ACCOUNT: &str = "000000000000";
const REGION: &str = "us-east-1";
/// The version that Lambda names so is what was deployed last, as `live` is.
const LATEST: &str = "$LATEST";
const ACCOUNT_DIGITS: usize = 12;
const DIGEST_DIGITS: usize = 64;

/// Why a text names no function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    /// It is no name of a function's.
    #[error(
        "Function not found: `{0}`. A function is named APP_FUNCTION, or by an ARN that ends so"
    )]
    NotFound(String),
    /// The name has another qualifier than the request.
    #[error("The derived qualifier from the function name does not match the specified qualifier.")]
    Contradiction,
}

/// Which function, and which version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub path: FunctionPath,
    pub select: Select,
}

impl Named {
    /// Reads the name of a request, and the qualifier beside it.
    pub fn parse(name: &str, qualifier: Option<&str>) -> Result<Self, NameError> {
        const CHARS_SHOWN: usize = 64;
        let unknown = || NameError::NotFound(name.chars().take(CHARS_SHOWN).collect());
        let parts: Vec<_> = name.split(':').collect();
        let rest = match parts.as_slice() {
            ["arn", _, "lambda", _, _, "function", rest @ ..] => rest,
            ["function", rest @ ..] => rest,
            [account, "function", rest @ ..] if is_account(account) => rest,
            rest => rest,
        };
        let (name, own) = match rest {
            [name] => (*name, None),
            [name, own] => (*name, Some(*own)),
            _ => return Err(unknown()),
        };
        let qualifier = match (own, qualifier.filter(|text| !text.is_empty())) {
            (Some(own), Some(asked)) if own != asked => return Err(NameError::Contradiction),
            (own, asked) => own.or(asked),
        };
        let (app, function) = name.split_once('_').ok_or_else(unknown)?;
        let path = FunctionPath {
            app: app.parse().map_err(|_| unknown())?,
            function: function.parse().map_err(|_| unknown())?,
        };
        let select = select(qualifier).ok_or_else(unknown)?;
        Ok(Self { path, select })
    }
}

fn is_account(text: &str) -> bool {
    text.len() == ACCOUNT_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The version of a qualifier: an alias, or the 64 digits of a version's digest.
fn select(qualifier: Option<&str>) -> Option<Select> {
    match qualifier {
        None | Some(LATEST) => Some(Select::Live),
        Some(digits) if digits.len() == DIGEST_DIGITS => {
            let version = format!("sha256:{digits}").parse().ok()?;
            Some(Select::Version(version))
        }
        Some(alias) => alias.parse().ok().map(Select::Alias),
    }
}

/// The name of a function for Lambda's clients.
pub(crate) fn function_name(path: &FunctionPath) -> String {
    format!("{}_{}", path.app, path.function)
}

/// Its ARN.
pub(crate) fn function_arn(path: &FunctionPath) -> String {
    let name = function_name(path);
    format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Digest;

    fn check(name: &str, qualifier: Option<&str>, expected: Option<Select>) {
        let found = Named::parse(name, qualifier).ok();
        let expected = expected.map(|select| Named {
            path: "shop/pay-out".parse().expect("a path"),
            select,
        });
        assert_eq!(found, expected, "{name} {qualifier:?}");
    }

    #[test]
    fn names_and_arns_name_the_same_function() {
        for name in [
            "shop_pay-out",
            "function:shop_pay-out",
            "123456789012:function:shop_pay-out",
            "arn:aws:lambda:eu-west-1:123456789012:function:shop_pay-out",
            "arn:aws-cn:lambda:cn-north-1:123456789012:function:shop_pay-out",
        ] {
            check(name, None, Some(Select::Live));
            check(name, Some("$LATEST"), Some(Select::Live));
            let beta = Select::Alias("beta".parse().expect("an alias"));
            check(name, Some("beta"), Some(beta.clone()));
            check(&format!("{name}:beta"), None, Some(beta.clone()));
            check(&format!("{name}:beta"), Some("beta"), Some(beta));
            check(&format!("{name}:beta"), Some("other"), None);
        }
        let own = function_arn(&"shop/pay-out".parse().expect("a path"));
        check(&own, None, Some(Select::Live));
        let version = Digest::of(b"x");
        check(
            "shop_pay-out",
            Some(&version.hex()),
            Some(Select::Version(version)),
        );
    }

    #[test]
    fn other_texts_name_nothing() {
        for name in [
            "",
            "shop",
            "shop-pay-out",
            "shop/pay-out",
            "_pay-out",
            "shop_",
            "shop_pay_out",
            "Shop_pay-out",
            "shop_pay-out:a:b",
            "12:function:shop_pay-out",
            "arn:aws:s3:eu-west-1:123456789012:function:shop_pay-out",
            "arn:aws:lambda:eu-west-1:123456789012:layer:shop_pay-out",
            "arn:aws:lambda:eu-west-1:123456789012:function",
        ] {
            check(name, None, None);
        }
        check("shop_pay-out", Some("NOT AN ALIAS"), None);
    }
}
