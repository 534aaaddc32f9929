//! `GET /docs`: the document of the API as a page. It is plain HTML, made once: no script, nothing from elsewhere.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Admin;

const STYLE: &str = include_str!("reference.css");
/// Levels of a schema that are written out; references lead to the rest.
const DEEPEST: usize = 4;

/// Serves the page of this document.
pub(crate) fn serve(router: Router<Admin>, document: &Value) -> Router<Admin> {
    let page: Arc<str> = page(document).into();
    // The style alone, by its hash.
    let style = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let answer = move || {
        let (page, policy) = (Arc::clone(&page), policy.clone());
        async move {
            let kind = HeaderValue::from_static("text/html; charset=utf-8");
            let mut response = ([(header::CONTENT_TYPE, kind)], page.to_string()).into_response();
            // A hash and plain words: always a header's value.
            if let Ok(policy) = policy.parse() {
                response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            }
            response
        }
    };
    router.route("/docs", get(answer))
}

/// Text as it stands in HTML.
struct Shown<'a>(&'a str);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

fn text(value: &Value) -> Shown<'_> {
    Shown(value.as_str().unwrap_or_default())
}

/// Fields of an object in their order; none where there is no object.
fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn page(document: &Value) -> String {
    let mut page = Page::default();
    let title = text(&document["info"]["title"]);
    page.add(format_args!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}: the API</title><style>{STYLE}</style><main><h1>{title}: the API</h1>"
    ));
    page.add(format_args!(
        "<p>{} The same for programs: <a href=/api/openapi.json>/api/openapi.json</a>.</p>",
        text(&document["info"]["description"])
    ));
    page.add("<h2>Who calls</h2><table>");
    for (name, scheme) in fields(&document["components"]["securitySchemes"]) {
        page.row(&[&Shown(name), &text(&scheme["description"])]);
    }
    page.add("</table><h2>Operations</h2><table>");
    let operations = || {
        let of_path =
            |(path, all)| fields(all).map(move |(method, operation)| (path, method.to_uppercase(), operation));
        fields(&document["paths"]).flat_map(of_path)
    };
    for (path, method, operation) in operations() {
        let id = text(&operation["operationId"]);
        page.add(format_args!(
            "<tr><td>{method}<td><a href=\"#{id}\"><code>{}</code></a><td>{}",
            Shown(path),
            text(&operation["summary"])
        ));
    }
    page.add("</table>");
    for (path, method, operation) in operations() {
        page.operation(path, &method, operation);
    }
    page.add("<h2>Shapes</h2>");
    for (name, schema) in fields(&document["components"]["schemas"]) {
        page.add(format_args!("<section id=\"schema-{0}\"><h3>{0}</h3>", Shown(name)));
        page.schema(schema, 0);
        page.example(&schema["example"]);
        page.add("</section>");
    }
    page.add("</main></html>");
    page.html
}

#[derive(Default)]
struct Page {
    html: String,
}

impl Page {
    fn add(&mut self, html: impl std::fmt::Display) {
        // Writing to a text can't fail.
        let _ = write!(self.html, "{html}");
    }

    fn row(&mut self, cells: &[&dyn std::fmt::Display]) {
        self.add("<tr>");
        for cell in cells {
            self.add(format_args!("<td>{cell}"));
        }
    }

    fn operation(&mut self, path: &str, method: &str, operation: &Value) {
        let id = text(&operation["operationId"]);
        self.add(format_args!(
            "<section id=\"{id}\"><h3>{method} <code>{}</code></h3><p>{} {}</p>",
            Shown(path),
            text(&operation["summary"]),
            text(&operation["description"])
        ));
        let parameters = operation["parameters"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if !parameters.is_empty() {
            self.add("<h4>Parameters</h4><table>");
            for parameter in parameters {
                let needed = if parameter["required"] == true { "needed" } else { "" };
                self.add(format_args!(
                    "<tr><td><code>{}</code><td>{} {needed}<td>",
                    text(&parameter["name"]),
                    text(&parameter["in"])
                ));
                self.schema(&parameter["schema"], 0);
                self.add(format_args!("<td>{}", text(&parameter["description"])));
                self.example(&parameter["example"]);
            }
            self.add("</table>");
        }
        let body = &operation["requestBody"];
        if body.is_object() {
            self.add(format_args!(
                "<h4>Body</h4><p>{}</p><table>",
                text(&body["description"])
            ));
            self.content(&body["content"]);
            self.add("</table>");
        }
        self.add("<h4>Answers</h4><table>");
        for (status, answer) in fields(&operation["responses"]) {
            self.add(format_args!(
                "<tr><td>{}<td>{}<td><table>",
                Shown(status),
                text(&answer["description"])
            ));
            self.content(&answer["content"]);
            self.add("</table>");
        }
        self.add("</table></section>");
    }

    fn content(&mut self, content: &Value) {
        for (kind, body) in fields(content) {
            self.add(format_args!("<tr><td><code>{}</code><td>", Shown(kind)));
            self.schema(&body["schema"], 0);
            self.example(&body["example"]);
        }
    }

    fn example(&mut self, example: &Value) {
        match example {
            Value::Null => {}
            Value::String(example) => self.add(format_args!(" <code class=example>{}</code>", Shown(example))),
            example => self.add(format_args!(
                " <code class=example>{}</code>",
                Shown(&example.to_string())
            )),
        }
    }

    fn schema(&mut self, schema: &Value, depth: usize) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            self.add(format_args!("<a href=\"#schema-{0}\">{0}</a>", Shown(name)));
            return;
        }
        for kind in ["oneOf", "anyOf", "allOf"] {
            for (nth, part) in schema[kind].as_array().into_iter().flatten().enumerate() {
                let between = if kind == "allOf" { " and " } else { " or " };
                self.add(if nth > 0 { between } else { "" });
                self.schema(part, depth);
            }
        }
        match &schema["type"] {
            Value::String(kind) => self.add(Shown(kind)),
            Value::Array(kinds) => {
                let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
                self.add(Shown(&kinds.join(" or ")));
            }
            _ => {}
        }
        for (name, said) in [
            ("enum", "one of"),
            ("minimum", "from"),
            ("maximum", "to"),
            ("maxLength", "of at most"),
            ("format", "as"),
        ] {
            match &schema[name] {
                Value::Null => {}
                Value::String(value) => self.add(format_args!(" {said} {}", Shown(value))),
                value => self.add(format_args!(" {said} {}", Shown(&value.to_string()))),
            }
        }
        if schema["items"].is_object() {
            self.add(" of ");
            self.schema(&schema["items"], depth + 1);
        }
        let properties = &schema["properties"];
        if !properties.is_object() || depth >= DEEPEST {
            return;
        }
        let needed = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.add("<table>");
        for (name, property) in fields(properties) {
            let mark = if needed.iter().any(|needed| needed == name) {
                "needed"
            } else {
                ""
            };
            self.add(format_args!("<tr><td><code>{}</code><td>{mark}<td>", Shown(name)));
            self.schema(property, depth + 1);
            self.add(format_args!("<td>{}", text(&property["description"])));
            self.example(&property["example"]);
        }
        self.add("</table>");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_document_says_shows_as_text() {
        let hostile = "<script>alert(\"1\")</script>&";
        let document = json!({"info": {"title": hostile}, "paths": {hostile: {"get": {"operationId": hostile,
            "parameters": [{"name": hostile, "in": "query", "schema": {"type": "string", "enum": [hostile]}}],
            "responses": {"200": {"description": hostile, "content": {hostile: {"schema": {"$ref": hostile}}}}}}}},
            "components": {"schemas": {hostile: {"example": hostile}}}});
        let page = page(&document);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)"));
    }
}
