//! Records that are missing, from what a node ships to what the API tells.

use mcp_gateway::proto::admin::v1::{ListRecordGapsRequest, RecordGap, Role};
use mcp_gateway::proto::node::v1::{Gap, OrgGap};

use super::*;
use crate::tests::admin::{Admin, Person, refused};

fn gap(org: Uuid, access: u64, audit: u64) -> Event {
    let orgs = vec![OrgGap { org_id: org.to_string(), access: access - 2, audit }];
    let gap_id = Uuid::now_v7().to_string();
    Event::Gap(Gap { from_us: AT, until_us: AT + 5_000_000, access, audit, orgs, gap_id })
}

async fn gaps(person: &Person, parent: &str) -> Vec<RecordGap> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRecordGapsRequest { parent: parent.into(), page_size: 1, page_token, ..Default::default() };
        let page = person.logs().list_record_gaps(request).await.unwrap().into_inner();
        found.extend(page.record_gaps);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test]
async fn missing_records_are_told_once_to_those_whose_they_were() {
    let (mut admin, acme, person) = Admin::with_acme().await;
    let platform = admin.platform_admin().await;
    let joined = Joined::to(&admin.running, "default").await;
    let mut lane = Lane::new(Uuid::now_v7(), 0);
    lane.push(decided(1));
    lane.push(gap(acme, 10, 3));
    lane.push(ended(1));
    let mut shipping = Shipping::of(&joined).await;
    assert_eq!(shipping.ship(lane.batch(0..3)).await, Ok(3));
    // As a node does that gave up the lane before it was acknowledged.
    let mut again = Lane::new(Uuid::now_v7(), 7);
    lane.frames.iter().for_each(|frame| again.push(AuditEvent::decode(&frame.payload[..]).unwrap().event.unwrap()));
    assert_eq!(shipping.ship(again.batch(0..3)).await, Ok(3));
    assert_eq!(rows(&admin.running).await, (1, 1, 0));

    let own = gaps(&person, "organizations/acme").await;
    let [one] = &own[..] else { panic!("{own:?}") };
    assert_eq!((one.access, one.audit, one.organization.as_str()), (8, 3, "organizations/acme"));
    assert_eq!(
        (one.node.clone(), one.until_time.unwrap().seconds - one.from_time.unwrap().seconds),
        (format!("nodes/{}", joined.id()), 5)
    );
    let all = gaps(&platform, "").await;
    assert_eq!(all.iter().map(|gap| gap.access + gap.audit).sum::<u64>(), 13, "with those that are told apart nowhere");
    assert_eq!(all.len(), 2);

    let everything = ListRecordGapsRequest::default();
    refused("all", person.logs().list_record_gaps(everything).await, Code::PermissionDenied, &[]);
    let globex = admin.organization("globex").await;
    let stranger = admin.member(globex, Role::Owner).await;
    let theirs = ListRecordGapsRequest { parent: "organizations/acme".into(), ..Default::default() };
    refused("another's", stranger.logs().list_record_gaps(theirs).await, Code::NotFound, &[]);
    assert_eq!(gaps(&stranger, "organizations/globex").await, []);
}
