//! JSON Web Tokens as an alternative to stored ones: signed by whoever has the key, `exp` required.

use crate::database::StartError;
use crate::error::{ApiError, Result};
use crate::tokens::Caller;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use std::path::Path;
use uuid::Uuid;

/// Least length of a shared secret, in bytes: that of the hash.
const LEAST_SECRET: usize = 32;

/// What verifies tokens.
pub struct JwtKey {
    key: DecodingKey,
    validation: Validation,
}

/// What a token says: `sub` is the client's origin id.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    #[serde(default)]
    relay: bool,
    role: Option<String>,
}

impl JwtKey {
    /// The key in a file: a public key in PEM, or a secret. The one algorithm that the key is for is taken, whatever a token names.
    pub fn read(path: &Path) -> Result<JwtKey, StartError> {
        let bytes = std::fs::read(path).map_err(|error| StartError::new(format!("cannot read --jwt-key-file: {error}")))?;
        let bytes = bytes.trim_ascii();
        let (key, algorithm) = if bytes.starts_with(b"-----BEGIN") {
            DecodingKey::from_rsa_pem(bytes)
                .map(|key| (key, Algorithm::RS256))
                .or_else(|_| DecodingKey::from_ec_pem(bytes).map(|key| (key, Algorithm::ES256)))
                .or_else(|_| DecodingKey::from_ed_pem(bytes).map(|key| (key, Algorithm::EdDSA)))
                .map_err(|_| StartError::new("--jwt-key-file holds no public key of RSA, P-256 or Ed25519"))?
        } else if bytes.len() >= LEAST_SECRET {
            (DecodingKey::from_secret(bytes), Algorithm::HS256)
        } else {
            return Err(StartError::new(format!("the secret in --jwt-key-file is shorter than {LEAST_SECRET} bytes")));
        };
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp"]);
        validation.validate_nbf = true;
        validation.validate_aud = false;
        Ok(JwtKey { key, validation })
    }

    /// Whom a token stands for; None if it is not valid.
    pub fn caller(&self, token: &str, has_roles: bool) -> Result<Option<Caller>> {
        let Ok(data) = decode::<Claims>(token, &self.key, &self.validation) else { return Ok(None) };
        let claims = data.claims;
        let origin = match claims.sub.as_deref().map(Uuid::try_parse) {
            None => None,
            Some(Ok(origin)) => Some(origin.to_string()),
            Some(Err(_)) => return Err(ApiError::unauthorized("the token's subject is not an origin id")),
        };
        if claims.role.is_some() && !has_roles {
            return Err(ApiError::unauthorized("the token names a role, and SQLite has none"));
        }
        let name = format!("jwt {}", origin.as_deref().unwrap_or("reader"));
        Ok(Some(Caller { name, origin, relay: claims.relay, role: claims.role, open: false }))
    }
}
