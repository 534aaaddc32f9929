//! The page's session: a cookie that names a token and an end, signed. It holds no secret, and is worth nothing once its
//! token is revoked.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cronvec_config::{SHORTEST_SESSION_SECRET, SecretSource};
use cronvec_secrets::Secrets;
use hmac::{Hmac, Mac};
use rand::RngCore;
use sha2::Sha256;

use crate::Refusal;

/// `__Host-`: browsers take it only over https, for this host alone and all of its paths.
pub const COOKIE: &str = "__Host-cronvec";
pub const HOURS: i64 = 12;

/// Signs sessions and knows its own again.
#[derive(Debug)]
pub struct Sessions {
    secrets: Secrets,
    source: SecretSource,
}

impl Sessions {
    /// Without a secret one of this process's own: its sessions end with it.
    pub fn new(source: Option<SecretSource>, secrets: Secrets) -> Self {
        let source = source.unwrap_or_else(|| {
            let mut bits = [0_u8; 32];
            rand::rng().fill_bytes(&mut bits);
            SecretSource::Value(URL_SAFE_NO_PAD.encode(bits))
        });
        Self { secrets, source }
    }

    /// The value of a cookie for this token until then, in seconds since 1970.
    pub async fn begin(&self, token: i32, until: i64) -> Result<String, Refusal> {
        let signature = mac(&self.key(false).await?, token, until)?.finalize().into_bytes();
        Ok(format!("{token}.{until}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The token of a cookie that is ours and not over yet.
    pub async fn token_of(&self, cookie: &str, now: i64) -> Result<Option<i32>, Refusal> {
        let Some((token, until, signature)) = parts(cookie) else {
            return Ok(None);
        };
        if until <= now {
            return Ok(None);
        }
        // The secret may have been rotated since it was read.
        for is_again in [false, true] {
            if mac(&self.key(is_again).await?, token, until)?
                .verify_slice(&signature)
                .is_ok()
            {
                return Ok(Some(token));
            }
            if matches!(self.source, SecretSource::Value(_)) {
                break;
            }
        }
        Ok(None)
    }

    async fn key(&self, is_again: bool) -> Result<String, Refusal> {
        let secret = match is_again {
            false => self.secrets.resolve(&self.source).await,
            true => self.secrets.reread(&self.source).await,
        };
        let secret = secret.map_err(|error| {
            tracing::error!(error = %error, "SESSION_SECRET can't be read");
            Refusal::unavailable("sessions can't be checked; the log says why")
        })?;
        if secret.expose().len() < SHORTEST_SESSION_SECRET && matches!(self.source, SecretSource::Arn(_)) {
            tracing::error!("SESSION_SECRET has fewer than {SHORTEST_SESSION_SECRET} characters");
            return Err(Refusal::unavailable("sessions can't be checked; the log says why"));
        }
        Ok(secret.expose().to_owned())
    }
}

fn parts(cookie: &str) -> Option<(i32, i64, Vec<u8>)> {
    let mut parts = cookie.split('.');
    let (token, until, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    match parts.next() {
        None => Some((token.parse().ok()?, until.parse().ok()?, signature)),
        Some(_) => None,
    }
}

fn mac(key: &str, token: i32, until: i64) -> Result<Hmac<Sha256>, Refusal> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).map_err(|error| Refusal::internal(&error))?;
    mac.update(format!("cronvec session {token} {until}").as_bytes());
    Ok(mac)
}

/// The session's cookie among those of a request. Two of the name are none: one of them isn't ours.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let mut ours = all
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value);
    let first = ours.next()?;
    ours.next().is_none().then_some(first)
}

/// What sets it, or, without a value, takes it away.
pub fn set_cookie(value: Option<&str>) -> String {
    let (value, age) = value.map_or(("", 0), |value| (value, HOURS * 3600));
    format!("{COOKIE}={value}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Strict")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        Sessions::new(None, Secrets::without_aws())
    }

    #[tokio::test]
    async fn a_session_names_its_token_until_it_is_over() {
        let sessions = sessions();
        let cookie = sessions.begin(7, 1000).await.unwrap();
        assert_eq!(sessions.token_of(&cookie, 999).await.unwrap(), Some(7));
        assert_eq!(sessions.token_of(&cookie, 1000).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_session_that_was_changed_or_signed_elsewhere_is_none() {
        let ours = sessions();
        let cookie = ours.begin(7, 1000).await.unwrap();
        let signature = cookie.rsplit('.').next().unwrap();
        for wrong in [
            format!("8.1000.{signature}"),
            format!("7.2000.{signature}"),
            "7.1000.".to_owned(),
            "7.1000".to_owned(),
            format!("{cookie}.x"),
            sessions().begin(7, 1000).await.unwrap(),
        ] {
            assert_eq!(ours.token_of(&wrong, 0).await.unwrap(), None, "{wrong}");
        }
    }
}
