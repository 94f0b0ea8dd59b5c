package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/masegraye/connect-plugin-go/bench/plugins/side"
)

// The sides, and what each of them has.
const (
	own = iota
	theirs
	sides
)

const orders = sides // in which they can be measured

// plan is what is measured.
type plan struct {
	programs string
	starts   int
	launches int
	rounds   int
	time     time.Duration
	many     int
}

// callers are the numbers of callers that calls are measured with.
var callers = []int{1, 32}

// results are the reports of each side.
type results struct {
	starts        [orders][sides]side.Report // by the side that went first
	churn, memory [sides]side.Report
	rates         map[int][sides][]float64 // calls per second of each round, by callers
}

// measure measures both sides in turns and prints the table.
func (p *plan) measure(ctx context.Context, out io.Writer) error {
	var hosts [sides]*host
	var err error
	if hosts[own], err = startHost(ctx, p.programs, "own", "ownplugin"); err != nil {
		return err
	}
	if hosts[theirs], err = startHost(ctx, p.programs, "theirs", "plugin"); err != nil {
		return errors.Join(err, hosts[own].end())
	}
	r, err := p.all(hosts)
	if err := errors.Join(err, hosts[own].end(), hosts[theirs].end()); err != nil {
		return err
	}
	return r.print(out, p)
}

func (p *plan) all(hosts [sides]*host) (*results, error) {
	r := &results{rates: map[int][sides][]float64{}}
	for n := range p.starts {
		first := n % orders
		for k := range sides { // one each, so that what else the machine does meets both
			i := (first + k) % sides
			one, err := hosts[i].tell(side.Order{Do: "starts", N: 1})
			if err != nil {
				return nil, err
			}
			s := &r.starts[first][i]
			s.Starts = append(s.Starts, one.Starts...)
			s.Stops = append(s.Stops, one.Stops...)
		}
	}
	for _, n := range callers {
		var rates [sides][]float64
		for range p.rounds {
			for i, h := range hosts {
				one, err := h.tell(side.Order{Do: "load", N: n, For: p.time})
				if err != nil {
					return nil, err
				}
				rates[i] = append(rates[i], float64(one.Calls)/one.Took.Seconds())
			}
		}
		r.rates[n] = rates
	}
	for i, h := range hosts {
		var err error
		if r.memory[i], err = h.tell(side.Order{Do: "memory", N: p.many}); err != nil {
			return nil, err
		}
		if r.churn[i], err = h.tell(side.Order{Do: "churn", N: p.launches}); err != nil {
			return nil, err
		}
	}
	return r, nil
}

var errLeft = fmt.Errorf("%w: something is left of the launches", errOfSide)
