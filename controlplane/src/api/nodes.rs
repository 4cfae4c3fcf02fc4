//! NodeService of the admin API: the fleet as administrators see it. Nodes themselves call [`crate::nodes::service`].
//!
//! Only platform administrators come here. A removed node's certificate is void at once: its streams end within a second.

use mcp_gateway::proto::admin::v1::{
    DeleteNodeRequest, DeleteNodeResponse, GetNodeRequest, ListNodesRequest, ListNodesResponse, Node as Wire, UpdateNodeRequest,
    node_service_server::NodeService,
};
use serde_json::json;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, Begun, admitted,
    aip::{self, Mask, Pages},
    error::Error,
};
use crate::{
    domain::{labels, rules::Rules},
    status::{Look, Viewer},
    store::{
        change::{Kind, Operation, Touched},
        nodes,
    },
};

const FIELDS: &[&str] = &["display_name", "labels"];
const UPDATE: &str = "/mcpgw.admin.v1.NodeService/UpdateNode";
const DELETE: &str = "/mcpgw.admin.v1.NodeService/DeleteNode";

#[tonic::async_trait]
impl NodeService for Api {
    async fn get_node(&self, request: Request<GetNodeRequest>) -> Result<Response<Wire>, Status> {
        let (_, request) = admitted(request)?;
        let found = self.core.store.node(id(&request.name)?).await.map_err(Error::from)?;
        let found = vec![found.ok_or(Error::NotFound(request.name))?];
        let look = Look::at(&self.core, found).await.map_err(Error::from)?;
        Ok(Response::new(look.wire(&look.nodes[0], &Viewer::Platform)))
    }

    async fn list_nodes(&self, request: Request<ListNodesRequest>) -> Result<Response<ListNodesResponse>, Status> {
        Ok(Response::new(list(self, request).await?))
    }

    async fn update_node(&self, request: Request<UpdateNodeRequest>) -> Result<Response<Wire>, Status> {
        Ok(Response::new(update(self, request).await?))
    }

    async fn delete_node(&self, request: Request<DeleteNodeRequest>) -> Result<Response<DeleteNodeResponse>, Status> {
        Ok(Response::new(delete(self, request).await?))
    }
}

async fn list(api: &Api, request: Request<ListNodesRequest>) -> Result<ListNodesResponse, Error> {
    let (_, request) = admitted(request)?;
    let mut rules = Rules::default();
    labels::judge(&mut rules, "labels", &request.labels);
    rules.check().map_err(Error::Invalid)?;
    let labels = format!("{:?}", request.labels);
    let pages = Pages::new(&api.core.custody, request.page_size, &["nodes", &request.pool, &labels])?;
    let after: Option<Uuid> = pages.position(&request.page_token)?;
    let mut found = api.core.store.nodes(&request.pool, &request.labels, after, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |node| node.id)?;
    let look = Look::at(&api.core, found).await?;
    let nodes = look.nodes.iter().map(|node| look.wire(node, &Viewer::Platform)).collect();
    Ok(ListNodesResponse { nodes, next_page_token })
}

async fn update(api: &Api, request: Request<UpdateNodeRequest>) -> Result<Wire, Error> {
    let (caller, request) = admitted(request)?;
    let given = aip::present("node", request.node.clone())?;
    let [uid] = aip::ids("node.name", &given.name, ["nodes"])?;
    let id = aip::uuid(uid, &given.name)?;
    let mask = Mask::read(request.update_mask.as_ref(), &given, FIELDS)?;
    let mut rules = Rules::default();
    if mask.has("display_name") {
        rules.display_name("node.display_name", &given.display_name);
    }
    if mask.has("labels") {
        labels::judge(&mut rules, "node.labels", &given.labels);
    }
    rules.check().map_err(Error::Invalid)?;
    let mut change = match api.begin(&caller, UPDATE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let found = nodes::lock(change.connection(), id).await?;
    let mut node = found.ok_or_else(|| Error::NotFound(given.name.clone()))?;
    aip::check_etag(&given.name, &given.etag, &node.id.to_string(), &node.meta)?;
    if mask.has("display_name") {
        node.display_name = given.display_name;
    }
    if mask.has("labels") {
        node.labels = given.labels;
    }
    let node = nodes::update(change.connection(), node).await?;
    let (resource, operation) = (given.name, Operation::Update);
    change.touch(Touched::aside(Kind::Node, operation, resource));
    change.detail(json!({ "fields": mask.fields(), "display_name": node.display_name, "labels": node.labels }));
    let look = Look::brief(&api.core, vec![node]);
    api.finish(change.seal().await?, look.wire(&look.nodes[0], &Viewer::Platform)).await
}

async fn delete(api: &Api, request: Request<DeleteNodeRequest>) -> Result<DeleteNodeResponse, Error> {
    let (caller, request) = admitted(request)?;
    let id = id(&request.name)?;
    let mut change = match api.begin(&caller, DELETE, &request).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(answer) => return Ok(answer),
    };
    let Some(pool) = nodes::revoke_node(change.connection(), id).await? else {
        return Err(Error::NotFound(request.name));
    };
    change.touch(Touched::aside(Kind::Node, Operation::Delete, request.name.clone()));
    change.detail(json!({ "pool": pool }));
    api.finish(change.seal().await?, DeleteNodeResponse {}).await
}

fn id(name: &str) -> Result<Uuid, Error> {
    let [id] = aip::ids("name", name, ["nodes"])?;
    aip::uuid(id, name)
}
