//! Sessions driven by scripts: what a client says on the left, what must be sent for it on the right.

mod random;
mod script;

use script::{delta, sotw};

#[test]
fn delta_first_start_goes_in_order() {
    delta(
        "
        ask cds                               =>
        ask lds                               =>
        world c:a c:b>b e:b l:x>r r:r         => cds +a +b
        ack cds                               =>
        ask eds +b                            => eds +b
        ack eds                               => lds +x
        ack lds                               =>
        ask rds +r                            => rds +r
        ack rds                               =>
        ",
    );
}

#[test]
fn delta_only_what_changed_is_sent() {
    delta(
        "
        world c:a c:b c:c e:a                 =>
        ask cds                               => cds +a +b +c
        ack cds                               =>
        world c:a c:b:2 c:c e:a               => cds +b
        ack cds                               =>
        world c:a c:b:2 c:c e:a               =>
        world c:a c:b:2 e:a                   => cds -c
        ack cds                               =>
        world c:a:2 c:d e:a                   => cds +a +d -b
        ",
    );
}

#[test]
fn delta_one_response_per_type_is_outstanding_and_the_next_carries_the_newest() {
    delta(
        "
        world c:a                             =>
        ask cds                               => cds +a
        world c:a:2                           =>
        world c:a:3 c:b                       =>
        ack cds                               => cds +a +b
        ",
    );
}

#[test]
fn delta_make_before_break() {
    delta(
        "
        world c:old>old e:old l:x>r r:r       =>
        ask cds                               => cds +old
        ack cds                               =>
        ask eds +old                          => eds +old
        ack eds                               =>
        ask lds                               => lds +x
        ack lds                               =>
        ask rds +r                            => rds +r
        ack rds                               =>
        world c:new>new e:new l:x>r r:r:2     => cds +new
        ack cds                               =>
        ask eds +new                          => eds +new
        ack eds                               => rds +r
        ack rds                               => cds -old
        ack cds                               => eds -old
        ack eds                               =>
        ",
    );
}

#[test]
fn delta_listeners_wait_for_endpoints_that_nobody_asked_for_yet() {
    delta(
        "
        world c:a>a e:a l:x                   =>
        ask cds                               => cds +a
        ask lds                               =>
        ack cds                               =>
        stall                                 => lds +x
        ",
    );
}

#[test]
fn delta_a_client_that_never_answers_holds_up_nobody_else_for_ever() {
    delta(
        "
        world c:a l:x>r r:r                   =>
        ask cds                               => cds +a
        ask lds                               =>
        ask rds +r                            =>
        stall                                 => lds +x | rds +r
        world c:a:2 l:x:2>r r:r               =>
        stall                                 =>
        ack cds                               => cds +a
        ack lds                               => lds +x
        ",
    );
}

#[test]
fn delta_clusters_stay_until_a_moved_listener_has_its_new_routes() {
    delta(
        "
        world c:a l:x>r1 r:r1                 =>
        ask cds                               => cds +a
        ack cds                               =>
        ask lds                               => lds +x
        ack lds                               =>
        ask rds +r1                           => rds +r1
        ack rds                               =>
        world c:b l:x:2>r2 r:r2               => cds +b
        ack cds                               => lds +x
        ack lds                               =>
        ask rds +r2                           => rds +r2
        ack rds                               => rds -r1
        ack rds                               => cds -a
        ",
    );
}

#[test]
fn delta_refused_routes_keep_the_clusters_they_had() {
    delta(
        "
        world c:a l:x>r r:r                   =>
        ask cds                               => cds +a
        ack cds                               =>
        ask lds                               => lds +x
        ack lds                               =>
        ask rds +r                            => rds +r
        ack rds                               =>
        world c:b l:x>r r:r:bad               => cds +b
        ack cds                               => rds +r
        nack rds no such thing                => ! rds r bad no such thing
        world c:b l:x>r r:r:bad               =>
        world c:b c:c l:x>r r:r:bad           => cds +c
        ack cds                               =>
        world c:b c:c l:x>r r:r:good          => rds +r
        ack rds                               => cds -a
        ack cds                               =>
        ",
    );
}

#[test]
fn delta_refusals_name_the_resource_the_client_spoke_of() {
    delta(
        "
        world c:a c:ab c:b                    =>
        ask cds                               => cds +a +ab +b
        nack cds cluster ab: lb_policy        => ! cds ab 1 cluster ab: lb_policy
        world c:a c:ab c:b:2                  => cds +b
        ack cds                               =>
        refused                               => ! cds ab 1 cluster ab: lb_policy
        world c:a c:ab:2 c:b:2                => cds +ab
        ack cds                               =>
        refused                               =>
        ",
    );
}

#[test]
fn delta_routes_refused_together_are_sent_again_one_by_one() {
    delta(
        "
        world r:a r:b r:c                     =>
        ask rds +a +b +c                      => rds +a +b +c
        nack rds bad domain                   => ! rds a 1 bad domain | ! rds b 1 bad domain | ! rds c 1 bad domain | rds +a
        ack rds                               => rds +b
        nack rds bad domain                   => ! rds b 1 bad domain | rds +c
        ack rds                               =>
        refused                               => ! rds b 1 bad domain
        ",
    );
}

#[test]
fn delta_changed_clusters_get_their_endpoints_again() {
    delta(
        "
        world c:a>ea c:b>eb e:ea e:eb         =>
        ask cds                               => cds +a +b
        ask eds +ea +eb                       => eds +ea +eb
        ack cds                               =>
        ack eds                               =>
        world c:a:2>ea c:b>eb e:ea e:eb       => cds +a | eds +ea
        ack eds                               =>
        ack cds                               =>
        ",
    );
}

#[test]
fn delta_names_newly_subscribed_are_answered_even_if_unchanged_or_unknown() {
    delta(
        "
        world r:a r:b                         =>
        ask rds +a +nowhere                   => rds +a -nowhere
        ack rds                               =>
        ask rds +a                            => rds +a
        ack rds +b                            => rds +b
        ack rds                               =>
        world r:a r:b r:nowhere               => rds +nowhere
        ack rds                               =>
        world r:a r:nowhere                   => rds -b
        ",
    );
}

#[test]
fn delta_unsubscribed_names_are_not_sent() {
    delta(
        "
        world r:a r:b                         =>
        ask rds +a +b                         => rds +a +b
        ack rds -b                            =>
        world r:a:2 r:b:2                     => rds +a
        ack rds                               =>
        ask rds +b                            => rds +b
        ",
    );
}

#[test]
fn delta_wildcards_legacy_explicit_and_ended() {
    delta(
        "
        world c:a c:b                         =>
        ask cds +a                            => cds +a
        ack cds +*                            => cds +b
        ack cds                               =>
        ask cds -a                            => cds +a
        ack cds -*                            =>
        world c:a:2 c:b:2                     =>
        ask cds +b                            => cds +b
        ",
    );
    delta(
        "
        world l:x                             =>
        ask lds -*                            => lds
        ack lds                               =>
        world l:x:2                           =>
        ",
    );
    delta(
        "
        world e:x                             =>
        ask eds                               =>
        ask eds +*                            => eds +x
        ",
    );
}

#[test]
fn delta_an_empty_wildcard_is_answered_once() {
    delta(
        "
        world e:unrelated                     =>
        ask cds                               => cds
        ack cds                               =>
        ask cds                               =>
        ask lds                               => lds
        ack lds                               =>
        ",
    );
}

#[test]
fn delta_a_reconnect_gets_only_what_changed() {
    delta(
        "
        world c:a c:b:2 c:d l:x>r r:r         =>
        ask cds @a=1 @b=1 @c=1                => cds +b +d
        ask eds +e @e=1                       =>
        ask lds @x=1                          =>
        ask rds +r @r=1                       =>
        ack cds                               => cds -c
        ack cds                               => eds -e
        ",
    );
    delta(
        "
        world c:a l:x>r r:r                   =>
        ask cds @a=1                          =>
        ask lds @x=1                          =>
        ask rds +r @r=1                       =>
        settled                               => yes
        ",
    );
}

#[test]
fn delta_a_reconnect_removes_no_cluster_before_the_routes_have_spoken() {
    delta(
        "
        world c:a l:x>r r:r:2                 =>
        ask cds @a=1 @old=1                   =>
        ask lds @x=1                          =>
        ask rds +r @r=1                       => rds +r
        ack rds                               => cds -old
        ",
    );
    delta(
        "
        world c:a                             =>
        ask cds @a=1 @old=1                   =>
        settled                               => no
        stall                                 => cds -old
        ack cds                               =>
        settled                               => yes
        ",
    );
}

#[test]
fn delta_stale_and_unknown_answers_change_nothing() {
    delta(
        "
        world c:a                             =>
        ask cds                               => cds +a
        stale cds                             => ? stale
        world c:a:2                           =>
        ack cds                               => cds +a
        ask unheard/of                        => ? unknown
        ",
    );
}

#[test]
fn delta_nothing_is_answered_before_the_first_world() {
    delta(
        "
        ask cds @a=1                          =>
        ask lds                               =>
        ask rds +r                            =>
        settled                               => yes
        world c:a                             => lds
        ack lds                               => rds -r
        ",
    );
}

#[test]
fn sotw_start_update_and_removal() {
    sotw(
        "
        world c:a>a c:b e:a l:x>r r:r         =>
        ask cds                               => cds +a +b
        ack cds                               =>
        ask eds a                             => eds +a
        ack eds a                             =>
        ask lds                               => lds +x
        ack lds                               =>
        ask rds r                             => rds +r
        ack rds r                             =>
        world c:a>a c:n>n e:a e:n l:x>r r:r:2 => cds +a +b +n
        ack cds                               =>
        ask eds a n                           => eds +n
        ack eds a n                           => rds +r
        ack rds r                             => cds +a +n
        ack cds                               =>
        world c:a:2>a c:n>n e:a e:n l:x>r r:r:2 => cds +a +n | eds +a
        ack eds a n                           =>
        ack cds                               =>
        ",
    );
}

#[test]
fn sotw_nonces() {
    sotw(
        "
        world c:a e:a e:b                     =>
        ask eds a                             => eds +a
        stale eds a b                         => ? stale
        ack eds a b                           => eds +b
        ack eds a b                           =>
        ask eds b                             =>
        world c:a e:a:2 e:b                   =>
        ask eds a b                           => eds +a
        nack eds a b : overlap                => ! eds a 2 overlap
        world c:a e:a:2 e:b                   =>
        world c:a e:a:3 e:b                   => eds +a
        ",
    );
}

#[test]
fn sotw_unknown_names_get_an_empty_response() {
    sotw(
        "
        world c:a                             =>
        ask rds nowhere                       => rds
        ack rds nowhere                       =>
        ask lds                               => lds
        ack lds                               =>
        world c:a r:nowhere l:x               => lds +x
        ack lds                               => rds +nowhere
        ack rds nowhere                       =>
        world c:a l:x                         =>
        ",
    );
}
