//! Owns what requests must know of models that many servers serve: how wide they are, and whether narrower vectors may
//! be asked of them. Refuses to know a server.

/// Widths of open models whose cards say that shorter vectors were trained for, by their names on Hugging Face and in
/// Ollama's library.
pub(super) fn own_width(model: &str) -> Option<u16> {
    match model {
        "qwen3-embedding-0.6b" | "qwen3-embedding:0.6b" | "jina-embeddings-v3" => Some(1024),
        "qwen3-embedding-4b" | "qwen3-embedding:4b" => Some(2560),
        "qwen3-embedding-8b" | "qwen3-embedding:8b" | "qwen3-embedding" => Some(4096),
        "mxbai-embed-large-v1" | "mxbai-embed-large" => Some(1024),
        "snowflake-arctic-embed-l-v2.0" | "snowflake-arctic-embed2" => Some(1024),
        "snowflake-arctic-embed-m-v2.0" | "snowflake-arctic-embed-m-v1.5" => Some(768),
        "nomic-embed-text-v1.5" | "nomic-embed-text" | "nomic-embed-text-v2-moe" => Some(768),
        "embeddinggemma-300m" | "embeddinggemma" => Some(768),
        _ => None,
    }
}

/// `openai/text-embedding-3-small`, as OpenRouter has it, is `text-embedding-3-small`; so is `…:latest`.
pub(super) fn base_name(model: &str) -> String {
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    name.strip_suffix(":latest").map_or(name.clone(), str::to_owned)
}
