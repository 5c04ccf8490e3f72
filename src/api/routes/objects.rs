//! Lists and single things.

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api,
    extract::{Named, Params, find_task},
};
use crate::api::{
    error::{ApiError, ErrorBody, ErrorCode},
    view::{
        Items, certificate, certificate::AuthorityView, certificate::CertificateView, cluster, cluster::ClusterView,
        deployment, deployment::DeploymentView, host, host::HostView, load_balancer, load_balancer::LoadBalancerView,
        metrics as metrics_view, scheduled_task, scheduled_task::ScheduledTaskView, security_group,
        security_group::SecurityGroupView, service, service::ServiceView, subnet, subnet::SubnetView, target_group,
        target_group::TargetGroupView, task, task::TaskView, task_definition, task_definition::TaskDefinitionView,
        volume, volume::VolumeView,
    },
};
use roadstead_core::model::state::EventSubject;

/// So many events are looked through for a list of services.
const EVENTS_FOR_A_LIST: u32 = 500;
/// So many events are looked through for one service.
const EVENTS_FOR_ONE: u32 = 20;

type Answer<T> = Result<Json<T>, ApiError>;

fn items<T>(items: Vec<T>) -> Json<Items<T>> {
    Json(Items { items })
}

#[derive(Deserialize, IntoParams)]
pub(super) struct InCluster {
    /// Only of this cluster.
    cluster: Option<String>,
}

#[derive(Deserialize, IntoParams)]
pub(super) struct TaskQuery {
    /// Only of this cluster.
    cluster: Option<String>,
    /// Only of this service.
    service: Option<String>,
    /// Only on this host.
    host: Option<String>,
    /// Ended ones, too.
    #[serde(default)]
    stopped: bool,
}

#[derive(Deserialize, IntoParams)]
pub(super) struct OfService {
    /// Only of this service.
    service: Option<String>,
}

/// All clusters.
#[utoipa::path(get, path = "/v1/clusters", responses((status = 200, body = Items<ClusterView>)))]
pub(super) async fn clusters(State(api): State<Api>) -> Json<Items<ClusterView>> {
    items(cluster::list(&api.handle.snapshot()))
}

/// One cluster.
#[utoipa::path(get, path = "/v1/clusters/{name}", params(("name" = String, Path)), responses((status = 200, body = ClusterView), (status = 404, body = ErrorBody)))]
pub(super) async fn cluster(State(api): State<Api>, Named(name): Named<String>) -> Answer<ClusterView> {
    let all = cluster::list(&api.handle.snapshot());
    all.into_iter().find(|view| view.name == name).map(Json).ok_or_else(|| ApiError::not_found("cluster", &name))
}

/// All hosts.
#[utoipa::path(get, path = "/v1/hosts", params(InCluster), responses((status = 200, body = Items<HostView>)))]
pub(super) async fn hosts(State(api): State<Api>, Params(query): Params<InCluster>) -> Json<Items<HostView>> {
    items(host::list(&api.handle.snapshot(), query.cluster.as_deref()))
}

/// One host.
#[utoipa::path(get, path = "/v1/hosts/{name}", params(("name" = String, Path)), responses((status = 200, body = HostView), (status = 404, body = ErrorBody)))]
pub(super) async fn host(State(api): State<Api>, Named(name): Named<String>) -> Answer<HostView> {
    let view = host::view(&api.handle.snapshot(), &name.as_str().into());
    view.map(Json).ok_or_else(|| ApiError::not_found("host", &name))
}

/// All scheduled tasks.
#[utoipa::path(get, path = "/v1/scheduledtasks", params(InCluster), responses((status = 200, body = Items<ScheduledTaskView>)))]
pub(super) async fn scheduled_tasks(
    State(api): State<Api>,
    Params(query): Params<InCluster>,
) -> Json<Items<ScheduledTaskView>> {
    items(scheduled_task::list(&api.handle.snapshot(), query.cluster.as_deref()))
}

/// One scheduled task, with what became of its last times.
#[utoipa::path(get, path = "/v1/scheduledtasks/{name}", params(("name" = String, Path)), responses((status = 200, body = ScheduledTaskView), (status = 404, body = ErrorBody)))]
pub(super) async fn scheduled_task(State(api): State<Api>, Named(name): Named<String>) -> Answer<ScheduledTaskView> {
    let view = scheduled_task::view(&api.handle.snapshot(), &name.as_str().into());
    view.map(Json).ok_or_else(|| ApiError::not_found("scheduledtask", &name))
}

/// All services.
#[utoipa::path(get, path = "/v1/services", params(InCluster), responses((status = 200, body = Items<ServiceView>)))]
pub(super) async fn services(State(api): State<Api>, Params(query): Params<InCluster>) -> Answer<Items<ServiceView>> {
    let events = api.handle.store.newest_events(None, EVENTS_FOR_A_LIST).await?;
    Ok(items(service::list(&api.handle.snapshot(), query.cluster.as_deref(), &events)))
}

/// One service.
#[utoipa::path(get, path = "/v1/services/{name}", params(("name" = String, Path)), responses((status = 200, body = ServiceView), (status = 404, body = ErrorBody)))]
pub(super) async fn service(State(api): State<Api>, Named(name): Named<String>) -> Answer<ServiceView> {
    let events =
        api.handle.store.newest_events(Some(&EventSubject::Service(name.as_str().into())), EVENTS_FOR_ONE).await?;
    let view = service::view(&api.handle.snapshot(), &name.as_str().into(), &events);
    view.map(Json).ok_or_else(|| ApiError::not_found("service", &name))
}

/// Tasks; those that ended only when asked for.
#[utoipa::path(get, path = "/v1/tasks", params(TaskQuery), responses((status = 200, body = Items<TaskView>)))]
pub(super) async fn tasks(State(api): State<Api>, Params(query): Params<TaskQuery>) -> Json<Items<TaskView>> {
    let filter = task::TaskFilter {
        cluster: query.cluster.as_deref(),
        service: query.service.as_deref(),
        host: query.host.as_deref(),
        stopped: query.stopped,
    };
    items(task::list(&api.handle.snapshot(), &filter))
}

/// One task, by its id or the beginning of it.
#[utoipa::path(get, path = "/v1/tasks/{name}", params(("name" = String, Path)), responses((status = 200, body = TaskView), (status = 404, body = ErrorBody)))]
pub(super) async fn task(State(api): State<Api>, Named(id): Named<String>) -> Answer<TaskView> {
    let snapshot = api.handle.snapshot();
    let task = find_task(&snapshot.world.state, &id)?;
    Ok(Json(task::view(&snapshot.world.state, task)))
}

/// All revisions of all task definitions, newest first.
#[utoipa::path(get, path = "/v1/taskdefinitions", responses((status = 200, body = Items<TaskDefinitionView>)))]
pub(super) async fn task_definitions(State(api): State<Api>) -> Json<Items<TaskDefinitionView>> {
    items(task_definition::list(&api.handle.snapshot()))
}

/// `family:revision`, or the newest of `family`.
#[utoipa::path(get, path = "/v1/taskdefinitions/{name}", params(("name" = String, Path)), responses((status = 200, body = TaskDefinitionView), (status = 404, body = ErrorBody)))]
pub(super) async fn task_definition(State(api): State<Api>, Named(name): Named<String>) -> Answer<TaskDefinitionView> {
    let view = task_definition::find(&api.handle.snapshot(), &name);
    view.map(Json).ok_or_else(|| ApiError::not_found("taskdefinition", &name))
}

/// Deployments that are remembered: by service, newest first.
#[utoipa::path(get, path = "/v1/deployments", params(OfService), responses((status = 200, body = Items<DeploymentView>)))]
pub(super) async fn deployments(
    State(api): State<Api>,
    Params(query): Params<OfService>,
) -> Json<Items<DeploymentView>> {
    items(deployment::list(&api.handle.snapshot(), query.service.as_deref()))
}

/// A deployment by its id, or the newest of a service by the service's name.
#[utoipa::path(get, path = "/v1/deployments/{name}", params(("name" = String, Path)), responses((status = 200, body = DeploymentView), (status = 404, body = ErrorBody)))]
pub(super) async fn deployment(State(api): State<Api>, Named(name): Named<String>) -> Answer<DeploymentView> {
    let all = deployment::list(&api.handle.snapshot(), None);
    let found = all.into_iter().find(|view| view.id == name || view.service == name);
    found.map(Json).ok_or_else(|| ApiError::not_found("deployment", &name))
}

/// All subnets.
#[utoipa::path(get, path = "/v1/subnets", params(InCluster), responses((status = 200, body = Items<SubnetView>)))]
pub(super) async fn subnets(State(api): State<Api>, Params(query): Params<InCluster>) -> Json<Items<SubnetView>> {
    items(subnet::list(&api.handle.snapshot(), query.cluster.as_deref()))
}

/// One subnet.
#[utoipa::path(get, path = "/v1/subnets/{name}", params(("name" = String, Path)), responses((status = 200, body = SubnetView), (status = 404, body = ErrorBody)))]
pub(super) async fn subnet(State(api): State<Api>, Named(name): Named<String>) -> Answer<SubnetView> {
    let all = subnet::list(&api.handle.snapshot(), None);
    all.into_iter().find(|view| view.name == name).map(Json).ok_or_else(|| ApiError::not_found("subnet", &name))
}

/// All security groups.
#[utoipa::path(get, path = "/v1/securitygroups", responses((status = 200, body = Items<SecurityGroupView>)))]
pub(super) async fn security_groups(State(api): State<Api>) -> Json<Items<SecurityGroupView>> {
    items(security_group::list(&api.handle.snapshot()))
}

/// One security group.
#[utoipa::path(get, path = "/v1/securitygroups/{name}", params(("name" = String, Path)), responses((status = 200, body = SecurityGroupView), (status = 404, body = ErrorBody)))]
pub(super) async fn security_group(State(api): State<Api>, Named(name): Named<String>) -> Answer<SecurityGroupView> {
    let all = security_group::list(&api.handle.snapshot());
    all.into_iter().find(|view| view.name == name).map(Json).ok_or_else(|| ApiError::not_found("securitygroup", &name))
}

/// All target groups.
#[utoipa::path(get, path = "/v1/targetgroups", params(InCluster), responses((status = 200, body = Items<TargetGroupView>)))]
pub(super) async fn target_groups(
    State(api): State<Api>,
    Params(query): Params<InCluster>,
) -> Json<Items<TargetGroupView>> {
    items(target_group::list(&api.handle.snapshot(), query.cluster.as_deref()))
}

/// One target group.
#[utoipa::path(get, path = "/v1/targetgroups/{name}", params(("name" = String, Path)), responses((status = 200, body = TargetGroupView), (status = 404, body = ErrorBody)))]
pub(super) async fn target_group(State(api): State<Api>, Named(name): Named<String>) -> Answer<TargetGroupView> {
    let all = target_group::list(&api.handle.snapshot(), None);
    all.into_iter().find(|view| view.name == name).map(Json).ok_or_else(|| ApiError::not_found("targetgroup", &name))
}

/// All load balancers.
#[utoipa::path(get, path = "/v1/loadbalancers", params(InCluster), responses((status = 200, body = Items<LoadBalancerView>)))]
pub(super) async fn load_balancers(
    State(api): State<Api>,
    Params(query): Params<InCluster>,
) -> Json<Items<LoadBalancerView>> {
    items(load_balancer::list(&api.handle.snapshot(), query.cluster.as_deref()))
}

/// One load balancer.
#[utoipa::path(get, path = "/v1/loadbalancers/{name}", params(("name" = String, Path)), responses((status = 200, body = LoadBalancerView), (status = 404, body = ErrorBody)))]
pub(super) async fn load_balancer(State(api): State<Api>, Named(name): Named<String>) -> Answer<LoadBalancerView> {
    let all = load_balancer::list(&api.handle.snapshot(), None);
    all.into_iter().find(|view| view.name == name).map(Json).ok_or_else(|| ApiError::not_found("loadbalancer", &name))
}

/// The certificates that load balancers ask for.
#[utoipa::path(get, path = "/v1/certificates", responses((status = 200, body = Items<CertificateView>)))]
pub(super) async fn certificates(State(api): State<Api>) -> Json<Items<CertificateView>> {
    items(certificate::list(&api.handle.snapshot()))
}

/// The authority that vouches for certificates of the fleet's own; none before one is needed.
#[utoipa::path(get, path = "/v1/certificates/authority", responses((status = 200, body = AuthorityView), (status = 404, body = ErrorBody)))]
pub(super) async fn authority(State(api): State<Api>) -> Answer<AuthorityView> {
    let view = certificate::authority(&api.handle.snapshot());
    let none = || {
        ApiError::new(ErrorCode::NotFound, "this fleet has no authority of its own yet")
            .hint("it is made for the first certificate with `issuer: SELF_SIGNED`")
    };
    view.map(Json).ok_or_else(none)
}

/// Volumes that have one place.
#[utoipa::path(get, path = "/v1/volumes", params(InCluster), responses((status = 200, body = Items<VolumeView>)))]
pub(super) async fn volumes(State(api): State<Api>, Params(query): Params<InCluster>) -> Json<Items<VolumeView>> {
    let all = volume::list(&api.handle.snapshot(), &api.handle.copies);
    items(all.into_iter().filter(|view| query.cluster.as_ref().is_none_or(|name| *name == view.cluster)).collect())
}

/// What Prometheus scrapes.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "Prometheus' text format", content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let text = metrics_view::text(&api.handle.snapshot());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
