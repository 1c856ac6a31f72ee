//! Tokens in the query string. Names and values are percent-decoded for comparison, `+` is no space, and what is not
//! removed keeps its exact spelling (Envoy writes the decoded parameters back, which can turn one into two).

use percent_encoding::percent_decode;

/// The decoded value of the first parameter called `name`.
pub(super) fn first(target: &str, name: &str) -> Option<Vec<u8>> {
    let (_, query) = target.split_once('?')?;
    parameters(query).find(|parameter| is_called(parameter, name)).map(|parameter| {
        let value = parameter.split_once('=').map_or("", |(_, value)| value);
        percent_decode(value.as_bytes()).collect()
    })
}

/// The target without any parameter called `name`; without `?` where none is left.
pub(super) fn without(target: &str, name: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let kept: Vec<&str> = query.split('&').filter(|parameter| !is_called(parameter, name)).collect();
    let kept = kept.join("&");
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{kept}") }
}

/// Whether any of the parameters called `names` is there.
pub(super) fn has_any<'a>(target: &str, mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| first(target, name).is_some())
}

fn parameters(query: &str) -> impl Iterator<Item = &str> {
    // The text behind the last `&` is a parameter only if it is not empty.
    query.strip_suffix('&').unwrap_or(query).split('&').filter(move |_| !query.is_empty())
}

fn is_called(parameter: &str, name: &str) -> bool {
    let key = parameter.split_once('=').map_or(parameter, |(key, _)| key);
    percent_decode(key.as_bytes()).eq(name.bytes())
}
