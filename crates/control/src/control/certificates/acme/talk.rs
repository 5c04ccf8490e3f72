//! One order, from the account to the certificate.

use std::time::Duration;

use async_trait::async_trait;
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, Key, NewOrder, Order, OrderStatus, Problem,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use roadstead_core::{
    manifest::certificate::{Given, given},
    model::{
        acme::{Challenges, is_word},
        name::HostName,
    },
    plan::acme::Asked,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::http::Http;

/// The authority judges, and gives the certificate, within this each.
const JUDGED_WITHIN: Duration = Duration::from_secs(120);
/// Of an authority's words so many are passed on.
const MAX_WORDS_CHARS: usize = 300;

/// Who answers what the authority asks.
#[async_trait]
pub trait Answers: Send {
    /// Returns when all that can be asked answer; those that do not.
    ///
    /// # Errors
    /// In words: nobody does.
    async fn show(&mut self, challenges: Challenges) -> Result<Vec<HostName>, String>;
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In words.
    pub why: String,
    /// The authority says not to come again sooner.
    pub retry_after_ms: Option<u64>,
}

/// Gets a certificate. `account`: the account's key, PKCS#8.
///
/// # Errors
/// [`Refused`].
pub async fn order(http: Http, account: &[u8], asked: &Asked, edges: &mut dyn Answers) -> Result<Given, Refused> {
    let mut told = Challenges::new();
    let mut silent = Vec::new();
    let came = speak(http.clone(), account, asked, edges, &mut told, &mut silent).await;
    came.map_err(|mut why| {
        // They are others each time, and would make each failure a new one.
        for token in told.keys() {
            why = why.replace(token, "…");
        }
        let mut why: String = why.chars().filter(|c| !c.is_control()).take(MAX_WORDS_CHARS).collect();
        if !silent.is_empty() {
            let hosts: Vec<&str> = silent.iter().map(HostName::as_str).collect();
            why += &format!(" (not answered by {})", hosts.join(", "));
        }
        Refused { why, retry_after_ms: http.retry_after_ms() }
    })
}

async fn speak(
    http: Http,
    account: &[u8],
    asked: &Asked,
    edges: &mut dyn Answers,
    told: &mut Challenges,
    silent: &mut Vec<HostName>,
) -> Result<Given, String> {
    let account = sign_in(http, account, asked).await.map_err(|error| words(&error))?;
    let names: Vec<Identifier> = asked.names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await.map_err(|error| words(&error))?;
    *told = asked_for(&mut order).await?;
    if !told.is_empty() {
        *silent = edges.show(told.clone()).await?;
        prove(&mut order).await?;
    }
    let (csr, key) = request(&asked.names).map_err(|error| error.to_string())?;
    order.finalize_csr(&csr).await.map_err(|error| words(&error))?;
    let chain = order.poll_certificate(&patience()).await.map_err(|error| words(&error))?;
    let came = given(&chain, &key).map_err(|wrong| format!("what it gave is not right: {wrong:?}"))?;
    let mut for_names: Vec<String> = came.facts.names.iter().map(|name| name.to_ascii_lowercase()).collect();
    for_names.sort();
    if for_names != asked.names {
        return Err(format!("what it gave is for other names: {}", for_names.join(", ")));
    }
    Ok(came)
}

/// Registers the key, which is no news to an authority that knows it.
async fn sign_in(http: Http, key: &[u8], asked: &Asked) -> Result<Account, Error> {
    let pkcs8 = PrivatePkcs8KeyDer::from(key.to_vec());
    let pair = (Key::from_pkcs8_der(pkcs8.clone_key())?, PrivateKeyDer::Pkcs8(pkcs8));
    let builder = Account::builder_with_http(Box::new(http));
    let (account, _) = builder.create_from_key(pair, asked.directory.clone()).await?;
    if let Some(email) = &asked.email {
        account.update_contacts(&[&format!("mailto:{email}")]).await?;
    }
    Ok(account)
}

/// What is to be answered for the names that the authority does not believe yet.
async fn asked_for(order: &mut Order) -> Result<Challenges, String> {
    let mut challenges = Challenges::new();
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut next = next.map_err(|error| words(&error))?;
        let name = next.identifier().to_string();
        match next.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => return Err(format!("{name}: its authorization is {other:?}")),
        }
        let challenge = next.challenge(ChallengeType::Http01);
        let challenge = challenge.ok_or_else(|| format!("{name}: the authority does not ask by HTTP (http-01)"))?;
        let (token, answer) = (challenge.token.clone(), challenge.key_authorization().as_str().to_owned());
        if !is_word(&token) || !is_word(&answer) {
            return Err(format!("{name}: the authority asks for what cannot be in a path"));
        }
        challenges.insert(token, answer);
    }
    Ok(challenges)
}

/// Lets the authority ask, and waits for its verdict.
async fn prove(order: &mut Order) -> Result<(), String> {
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut next = next.map_err(|error| words(&error))?;
        if next.status == AuthorizationStatus::Pending
            && let Some(mut challenge) = next.challenge(ChallengeType::Http01)
        {
            challenge.set_ready().await.map_err(|error| words(&error))?;
        }
    }
    match order.poll_ready(&patience()).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(verdict(order).await.unwrap_or_else(|| "it refused, and does not say why".to_owned())),
        Err(error) => Err(verdict(order).await.unwrap_or_else(|| words(&error))),
    }
}

/// What the authority found wrong with the names.
async fn verdict(order: &mut Order) -> Option<String> {
    let mut found = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut next = next.ok()?;
        next.refresh().await.ok()?;
        let name = next.identifier().to_string();
        let errors = next.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        found.extend(errors.map(|problem| format!("{name}: {}", of(problem))));
    }
    if found.is_empty() { None } else { Some(found.join("; ")) }
}

fn request(names: &[String]) -> Result<(Vec<u8>, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    Ok((params.serialize_request(&key)?.der().to_vec(), key.serialize_pem()))
}

fn patience() -> RetryPolicy {
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(JUDGED_WITHIN)
}

fn words(error: &Error) -> String {
    match error {
        Error::Api(problem) => of(problem),
        Error::Timeout(_) => format!("no verdict within {JUDGED_WITHIN:?}"),
        other => other.to_string(),
    }
}

fn of(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("no type");
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    let more: String = problem.subproblems.iter().map(|it| format!("; {it}")).collect();
    format!("{} ({kind}){more}", problem.detail.as_deref().unwrap_or("refused"))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use bytes::Bytes;
    use http::{Request, Response};

    use super::*;
    use crate::control::http::Carrier;

    /// An authority that knows everybody, and answers a new order like this.
    struct Authority {
        answer: fn() -> Response<Bytes>,
        orders: Arc<AtomicUsize>,
    }

    const DIRECTORY: &str = r#"{
        "newNonce": "https://ca.lan/nonce", "newAccount": "https://ca.lan/account", "newOrder": "https://ca.lan/order"
    }"#;

    #[async_trait]
    impl Carrier for Authority {
        async fn carry(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
            let answer = Response::builder().header("replay-nonce", "abc");
            Ok(match request.uri().path() {
                "/dir" => answer.body(Bytes::from(DIRECTORY)).unwrap(),
                "/account" => {
                    answer.status(200).header("location", "https://ca.lan/me").body(Bytes::from("{}")).unwrap()
                }
                "/order" => {
                    self.orders.fetch_add(1, Ordering::SeqCst);
                    let answer = (self.answer)();
                    if answer.status() == 418 {
                        std::future::pending::<()>().await;
                    }
                    answer
                }
                _ => answer.body(Bytes::new()).unwrap(),
            })
        }
    }

    struct Nobody;

    #[async_trait]
    impl Answers for Nobody {
        async fn show(&mut self, _: Challenges) -> Result<Vec<HostName>, String> {
            Err("nothing is asked".to_owned())
        }
    }

    fn refusal(status: u16, retry_after: &str, body: &'static str) -> Response<Bytes> {
        Response::builder().status(status).header("retry-after", retry_after).body(Bytes::from(body)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_is_told_why_and_when_to_come_again() {
        const LIMITED: &str =
            r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many\u001b[2J orders"}"#;
        type Row = (fn() -> Response<Bytes>, &'static str, Option<u64>);
        let answers: [Row; 5] = [
            (|| refusal(429, "3600", LIMITED), "too many[2J orders (rateLimited)", Some(3_600_000)),
            (|| refusal(429, "Fri, 31 Dec 1999 23:59:59 GMT", LIMITED), "too many[2J orders (rateLimited)", None),
            (|| refusal(503, "soon", "<html>busy"), "ca.lan answers with HTTP 503 Service Unavailable", None),
            (|| refusal(503, "7", ""), "ca.lan answers with HTTP 503 Service Unavailable", Some(7_000)),
            (|| refusal(418, "", ""), "ca.lan: no answer within 30s", None),
        ];
        let (_, key) = Key::generate_pkcs8().unwrap();
        let asked = Asked {
            names: vec!["a.example".to_owned()],
            directory: "https://ca.lan/dir".to_owned(),
            ..Asked::default()
        };
        for (answer, why, retry_after_ms) in answers {
            let orders = Arc::new(AtomicUsize::new(0));
            let http = Http::new(Authority { answer, orders: Arc::clone(&orders) });
            let refused = order(http, key.secret_pkcs8_der(), &asked, &mut Nobody).await.unwrap_err();
            assert_eq!(refused, Refused { why: why.to_owned(), retry_after_ms });
            assert_eq!(orders.load(Ordering::SeqCst), 1, "it is not asked again by itself");
        }
    }
}
