// Package tally adds up calls by who calls whom: how many, how they ended, how long they took.
// It is bounded, whatever its callers are called.
package tally

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// MaxEdges is how many edges a table keeps apart where its user says nothing else. What comes
// beyond them is added up on one edge whose names are [Other].
const MaxEdges = 1024

// Other stands for the names on the edge of everything that has no edge of its own.
const Other = "(other)"

// Buckets are the upper bounds of the latencies that are counted, in the order of
// [Row].Latencies, which has one more for what is above all of them.
var Buckets = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 10 * time.Second,
}

// Edge is who calls whom for what.
type Edge struct{ Caller, Provider, Type string }

// Class is how calls end, by the fault of whom.
type Class uint8

// The classes of codes.
const (
	OK       Class = iota // success
	Caller                // the request was wrong, or not allowed
	Provider              // the provider failed, was not there or had no time
	Canceled              // the caller went away

	classes
)

// ClassOf tells the class of a code of gRPC and Connect, zero for success.
func ClassOf(code uint32) Class {
	switch code {
	case 0:
		return OK
	case 1:
		return Canceled
	case 3, 5, 6, 7, 9, 10, 11, 12, 16:
		return Caller
	default: // unknown, deadline, exhausted, internal, unavailable, data loss
		return Provider
	}
}

// Call is one call to add.
type Call struct {
	Code              uint32 // of gRPC and Connect, zero for success
	Duration          time.Duration
	Request, Response int64 // bytes
	End               time.Time
}

// Row is what is known of an edge.
type Row struct {
	Edge

	Calls     uint64
	Ended     [classes]uint64 // by Class
	Latencies [len(Buckets) + 1]uint64
	Total     time.Duration // of all calls together
	Request   int64         // bytes
	Response  int64         // bytes
	LastCode  uint32        // of the last call that did not succeed, zero for none
	LastError time.Time     // when that was
	LastCall  time.Time
}

// Failed is how many calls ended by a fault.
func (r *Row) Failed() uint64 { return r.Ended[Caller] + r.Ended[Provider] }

// Mean is how long a call took, zero before the first.
func (r *Row) Mean() time.Duration {
	if r.Calls == 0 {
		return 0
	}
	return r.Total / time.Duration(r.Calls) //nolint:gosec // so many calls no host lives to see
}

// Quantile is an upper bound of how long that part of the calls took, between 0 and 1: that of
// the bucket which holds it, or of the last one where it is above all. It is zero before the
// first call.
func (r *Row) Quantile(q float64) time.Duration {
	want := max(uint64(q*float64(r.Calls)+0.5), 1)
	if r.Calls == 0 {
		return 0
	}
	var sum uint64
	for i, n := range r.Latencies {
		if sum += n; sum >= want {
			return Buckets[min(i, len(Buckets)-1)]
		}
	}
	return Buckets[len(Buckets)-1]
}

// Table adds calls up. The zero value keeps [MaxEdges] edges. It is safe for concurrent use.
type Table struct {
	// Max is how many edges are kept apart; zero means [MaxEdges]. Set it before the first use.
	Max int

	mu   sync.Mutex
	rows map[Edge]*Row
}

// Add adds a call that is over.
func (t *Table) Add(e Edge, c Call) {
	bucket, _ := slices.BinarySearch(Buckets[:], c.Duration)
	class := ClassOf(c.Code)
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rowLocked(e)
	r.Calls++
	r.Ended[class]++
	r.Latencies[bucket]++
	r.Total += c.Duration
	r.Request += c.Request
	r.Response += c.Response
	r.LastCall = c.End
	if class != OK {
		r.LastCode, r.LastError = c.Code, c.End
	}
}

// Rows returns what is known, sorted by caller, provider and type.
func (t *Table) Rows() []Row {
	t.mu.Lock()
	rows := make([]Row, 0, len(t.rows))
	for _, r := range t.rows {
		rows = append(rows, *r)
	}
	t.mu.Unlock()
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Type, b.Type))
	})
	return rows
}

// rowLocked returns the row of an edge, or that of all others where there is no room.
func (t *Table) rowLocked(e Edge) *Row {
	if t.rows == nil {
		t.rows = map[Edge]*Row{}
	}
	r := t.rows[e]
	if r == nil && len(t.rows) >= cmp.Or(t.Max, MaxEdges) {
		e = Edge{Other, Other, Other}
		r = t.rows[e]
	}
	if r == nil {
		r = &Row{Edge: e}
		t.rows[e] = r
	}
	return r
}
