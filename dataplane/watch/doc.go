// Package watch lets somebody look at packets while they pass: what trace, capture, samples in
// the log and flow logs are made of.
//
// A Subscription has a ring for each worker. The worker puts an Event into it for each packet that
// the subscription's Filter takes; one reader takes them out. Nobody waits for anybody: a ring
// that is full loses the event, and counts it. Events hold no pointers and name rules and
// attachments by number; package dataplane knows the names.
package watch
