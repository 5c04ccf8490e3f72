//! A service's `expose` by itself.

use super::{Beside, join, rule, target_group, tls};
use crate::{
    manifest::{
        node::at,
        report::{Scope, quote},
    },
    model::spec::{
        TargetGroupSpec,
        expose::{Expose, ExposeIssuer, is_public},
    },
};

/// Checks how a service is exposed; paths become those of the tree.
pub(super) fn expose(expose: &mut Expose, scope: &mut Scope<'_>, beside: Beside<'_>) {
    let base = at!["expose"];
    let field = |field: &'static str| join(base, at![field]);
    rule::of_host(&expose.host, &field("host"), scope);
    if let Some(path) = &expose.path {
        rule::of_path(path, &field("path"), scope);
    }
    if let Some(port) = expose.container_port {
        target_group::port(port, &field("containerPort"), scope);
    }
    let group = TargetGroupSpec { health_check: expose.health_check.clone(), ..TargetGroupSpec::of_port(1) };
    target_group::health_check(&group, &field("healthCheck"), scope);
    match expose.issuer {
        Some(ExposeIssuer::Acme) if expose.host.contains(['*', '?']) => {
            let message = format!(
                "{} is a wildcard: of those an authority asks in ways that are not answered here",
                quote(&expose.host)
            );
            scope
                .error(&field("host"), "tls", message)
                .help("name the host, or give a load balancer of your own the certificate");
        }
        Some(ExposeIssuer::Acme | ExposeIssuer::SelfSigned) if !tls::is_domain(&expose.host) => {
            let message = format!("{} is no name that a certificate can be for", quote(&expose.host));
            scope.error(&field("host"), "tls", message);
        }
        Some(ExposeIssuer::Acme | ExposeIssuer::SelfSigned | ExposeIssuer::None) | None => {}
    }
    let Some(acme) = &mut expose.acme else { return };
    match expose.issuer {
        Some(ExposeIssuer::Acme) => {}
        None if is_public(&expose.host) => {}
        Some(ExposeIssuer::SelfSigned | ExposeIssuer::None) | None => {
            scope
                .error(&field("acme"), "tls", "only a certificate with `issuer: ACME` is ordered of an authority")
                .help("add `issuer: ACME`, or remove this");
        }
    }
    tls::authority(acme, &field("acme"), beside, scope);
}
