// Package side is what both sides of bench-plugins have in common: a process that launches
// plugins in its own way, and does what it is ordered to on its standard input.
package side

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Side launches plugins. Names tell apart those that run at the same time.
type Side interface {
	Launch(ctx context.Context, name string) (Plugin, error)
}

// Plugin is one that runs. Call makes one unary call and is safe for concurrent use.
type Plugin interface {
	Call(ctx context.Context, payload string) error
	Pid() int
	Stop(ctx context.Context) error
}

// Order is a line of the input.
type Order struct {
	// Do is what is to be done: "starts", "load", "churn" or "memory".
	Do string `json:"do"`
	// N is how many launches, or callers.
	N int `json:"n"`
	// For is how long calls are made, in nanoseconds.
	For time.Duration `json:"for"`
}

// Report is a line of the output.
type Report struct {
	Error  string          `json:"error,omitempty"`
	Starts []time.Duration `json:"starts,omitempty"` // until the first call was answered
	Stops  []time.Duration `json:"stops,omitempty"`
	Calls  int64           `json:"calls,omitempty"`
	Took   time.Duration   `json:"took,omitempty"`
	Before Usage           `json:"before"`
	After  Usage           `json:"after"`
	Host   int64           `json:"host,omitempty"`   // bytes of the host for each plugin
	Plugin int64           `json:"plugin,omitempty"` // bytes of each plugin
}

// PayloadSize is how many bytes each call carries.
const PayloadSize = 256

var payload = string(make([]byte, PayloadSize))

// Serve does what the orders on in say, until it ends.
func Serve(ctx context.Context, s Side, in io.Reader, out io.Writer) error {
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o Order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("order: %w", err)
		}
		r := obey(ctx, s, o)
		if err := answers.Encode(r); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func obey(ctx context.Context, s Side, o Order) *Report {
	work := map[string]func(context.Context, Side, Order, *Report) error{
		"starts": starts, "load": load, "churn": churn, "memory": memory,
	}[o.Do]
	if work == nil {
		return &Report{Error: "unknown order " + o.Do}
	}
	var r Report
	if err := work(ctx, s, o, &r); err != nil {
		return &Report{Error: err.Error()}
	}
	return &r
}

// starts launches plugins one after the other, with one call each.
func starts(ctx context.Context, s Side, o Order, r *Report) error {
	for range o.N {
		begun := time.Now()
		p, err := s.Launch(ctx, "plugin")
		if err != nil {
			return fmt.Errorf("launch: %w", err)
		}
		if err := p.Call(ctx, payload); err != nil {
			return fmt.Errorf("first call: %w", err)
		}
		r.Starts = append(r.Starts, time.Since(begun))
		begun = time.Now()
		if err := p.Stop(ctx); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
		r.Stops = append(r.Stops, time.Since(begun))
	}
	return nil
}

// load makes calls of one plugin with N callers.
func load(ctx context.Context, s Side, o Order, r *Report) error {
	p, err := s.Launch(ctx, "plugin")
	if err != nil {
		return fmt.Errorf("launch: %w", err)
	}
	for range 100 * o.N { // warm up
		if err := p.Call(ctx, payload); err != nil {
			return fmt.Errorf("call: %w", err)
		}
	}
	var failed atomic.Pointer[error]
	var calls atomic.Int64
	var calling sync.WaitGroup
	begun := time.Now()
	for range o.N {
		calling.Go(func() {
			made := int64(0)
			for (made == 0 || time.Since(begun) < o.For) && failed.Load() == nil {
				if err := p.Call(ctx, payload); err != nil {
					failed.Store(&err)
				}
				made++
			}
			calls.Add(made)
		})
	}
	calling.Wait()
	r.Took, r.Calls = time.Since(begun), calls.Load()
	if err := failed.Load(); err != nil {
		return fmt.Errorf("call: %w", *err)
	}
	return p.Stop(ctx)
}

// collect is a call that has a plugin collect its garbage: whether it did so by itself in its first hundred
// calls makes a fifth of what it takes.
const collect = "collect"

// memory launches plugins that stay, and tells what each of them takes after a collection.
func memory(ctx context.Context, s Side, o Order, r *Report) error {
	before, err := ownMemory()
	if err != nil {
		return err
	}
	plugins := make([]Plugin, 0, o.N)
	for i := range o.N {
		p, err := s.Launch(ctx, fmt.Sprintf("plugin%d", i))
		if err != nil {
			return fmt.Errorf("launch: %w", err)
		}
		plugins = append(plugins, p)
		for range 100 { // as many as show what a plugin that works takes
			if err := p.Call(ctx, payload); err != nil {
				return fmt.Errorf("call: %w", err)
			}
		}
		if err := p.Call(ctx, collect); err != nil {
			return fmt.Errorf("collect: %w", err)
		}
	}
	after, err := ownMemory()
	if err != nil {
		return err
	}
	r.Host = (after - before) / int64(o.N)
	for _, p := range plugins {
		n, err := memoryOf(p.Pid())
		if err != nil {
			return err
		}
		r.Plugin += n / int64(o.N)
	}
	for _, p := range plugins {
		err = errors.Join(err, p.Stop(ctx))
	}
	return err
}

// ownMemory is the private memory of this process after a collection.
func ownMemory() (int64, error) {
	debug.FreeOSMemory()
	return memoryOf(os.Getpid())
}
