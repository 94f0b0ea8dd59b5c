package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/attack/kinds"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

// TestMain is one of the processes where a test has started it.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "-role" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestAttacks looks at what an attack did, not at what it cost: that depends on the machine.
func TestAttacks(t *testing.T) {
	t.Parallel()
	for only, cut := range map[string]bool{ // whether it has to be
		"a stranger: PING flood":             true,
		"a bad plugin: calls to a slow":      false,
		"a bad plugin: many instances":       false,
		"a hostile provider: empty DATA flo": false,
	} {
		t.Run(only, func(t *testing.T) {
			t.Parallel()
			p := play{lasts: time.Second, turn: time.Second, dir: t.TempDir()}
			authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: p.dir})
			if err != nil {
				t.Fatal(err)
			}
			r, err := p.play(t.Context(), authority, kinds.Named(only)[0])
			loud := r.loud.all()
			if err != nil || r.outcome.Sent == 0 || len(loud.times) == 0 || loud.failed > 0 {
				t.Fatalf("%d sent; %d calls beside them, %d failed (%v): %v", r.outcome.Sent, len(loud.times), loud.failed, loud.last, err)
			}
			if cut && r.outcome.CutAfter == 0 {
				t.Errorf("not cut off: %+v", r.outcome)
			}
			var out bytes.Buffer
			table := table{out: &out}
			table.begin()
			table.add(r)
			if words, _ := r.verdict(); !strings.Contains(out.String(), only) || !strings.HasSuffix(strings.TrimSpace(out.String()), strings.TrimSpace(words)) {
				t.Errorf("%q is not in\n%s", words, out.String())
			}
		})
	}
}

// TestABurnerFollowsALongCurve has one of more points than an argument of a process has room for.
func TestABurnerFollowsALongCurve(t *testing.T) {
	t.Parallel()
	p := play{dir: t.TempDir()}
	for i := range 50_000 {
		p.curve = append(p.curve, stage.Burnt{At: time.Duration(i)})
	}
	burner, err := p.burner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var said string
	if err := burner.Hear(&said); err != nil || said != "done" {
		t.Errorf("%q, %v", said, err)
	}
	if _, err := burner.End(); err != nil {
		t.Error(err)
	}
}

func TestOnlyLoopbackIsAttacked(t *testing.T) {
	t.Parallel()
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"192.0.2.1:443", "example.com:443", "localhost:443", "[2001:db8::1]:443", ""} {
		for _, k := range kinds.All() {
			if _, err := k.Play(t.Context(), authority, addr, time.Second); err == nil || !strings.Contains(err.Error(), "loopback") {
				t.Errorf("%q, %s: %v", addr, k.Name, err)
			}
		}
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	all := time.Second * time.Duration(runtime.NumCPU()) // a second of every processor
	for want, r := range map[string]row{
		"cut off":            {outcome: kinds.Outcome{CutAfter: time.Second}},
		"bounded":            {host: time.Second / 2},
		"bounded: 3 refused": {host: all, outcome: kinds.Outcome{Refused: 3}},
		"OPEN: processor, of one that was refused": {host: 4 * all, outcome: kinds.Outcome{Refused: 3}},
		"OPEN: processor, of one that was cut off": {host: 4 * all, outcome: kinds.Outcome{CutAfter: 1}},
		"OPEN: memory":        {memory: mostMemory + 1, outcome: kinds.Outcome{CutAfter: time.Second}},
		"OPEN: processor":     {host: 2 * time.Second},
		"HONEST CALLS FAILED": {outcome: kinds.Outcome{CutAfter: time.Second}, loud: turns{{failed: 1}}},
	} {
		r.lasts, r.most = 2*time.Second, mostMemory
		words, good := r.verdict()
		want, _, _ = strings.Cut(want, ",")
		if !strings.HasPrefix(words, want) || good == (strings.ToUpper(want[:2]) == want[:2]) {
			t.Errorf("%s: %q, %v", want, words, good)
		}
	}
}

// TestRounds looks at what rounds are compared as: all calls of each side with all of the other, an
// interval in which that lies, and every other control with the rest.
func TestRounds(t *testing.T) {
	t.Parallel()
	took := func(d time.Duration) turns { return turns{{times: []time.Duration{d, d}}} }
	var r row
	for _, one := range [][2]time.Duration{{4, 2}, {6, 4}, {4, 2}, {4, 4}} {
		r.join(row{loud: took(one[0]), control: took(one[1]), burnt: took(one[0])})
	}
	if n := len(r.loud.all().times); n != 8 {
		t.Errorf("%d calls", n)
	}
	least, most := r.interval(r.control)
	if r.worse(r.control) != 1.5 || least != 1 || most != 2 || r.control.floor() != 2 {
		t.Errorf("worse %v, %v to %v, floor %v", r.worse(r.control), least, most, r.control.floor())
	}
	if r.worse(r.burnt) != 1 {
		t.Errorf("%v times as bad as beside the same", r.worse(r.burnt))
	}
}

// TestBeginnings looks at the beginning of a turn, which is also compared by itself.
func TestBeginnings(t *testing.T) {
	t.Parallel()
	took := func(first, later time.Duration) turns {
		return turns{{times: stage.Times{first, later}, first: stage.Times{first}}}
	}
	var r row
	for range 2 {
		r.join(row{kind: kinds.Kind{Who: kinds.Plugin}, loud: took(6*time.Millisecond, 8*time.Millisecond), control: took(2*time.Millisecond, 8*time.Millisecond), burnt: took(3*time.Millisecond, 4*time.Millisecond)})
	}
	var out bytes.Buffer
	table := table{out: &out}
	table.add(r)
	if err := table.end(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"6.0/3.0/2.0 ms", "moments: 2.00 times", "of a turn 2.00.", "way: 1.00 times", "of a turn 3.00."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// TestTurns looks at an attack that is played in turns with its control: as often, and one after the other.
func TestTurns(t *testing.T) {
	t.Parallel()
	p := play{lasts: 2 * time.Second, turn: time.Second, dir: t.TempDir()}
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: p.dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, p.itself = range []bool{false, true} {
		r, err := p.play(t.Context(), authority, kinds.Named("a bad plugin: health questions")[0])
		if err != nil || len(r.loud) != 2 || len(r.control) != 2 || r.lasts != p.lasts || r.outcome.Sent == 0 {
			t.Fatalf("%d turns beside %d of the control, %v of attack, %d sent: %v", len(r.loud), len(r.control), r.lasts, r.outcome.Sent, err)
		}
		if burnt := len(r.burnt) == 2 && r.burning > 0; burnt == p.itself {
			t.Errorf("%d turns of a burner that used %v beside a control by itself (%v)", len(r.burnt), r.burning, p.itself)
		}
		if n := len(r.loud[0].first); n == 0 || n > len(r.loud[0].times) {
			t.Errorf("%d of %d calls are of the beginning", n, len(r.loud[0].times))
		}
		if grew := r.memory > 0; grew == p.itself {
			t.Errorf("the host that is compared by itself (%v) was looked at: %v", p.itself, grew)
		}
	}
}

// TestAgainstAQuietHost looks at what strangers and hostile providers are compared with.
func TestAgainstAQuietHost(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	table := table{out: &out}
	for _, slow := range []time.Duration{3 * time.Millisecond, 2 * time.Millisecond} {
		table.add(row{
			kind: kinds.Kind{Who: kinds.Stranger}, quiet: probed{times: stage.Times{time.Millisecond, time.Millisecond, time.Millisecond}},
			loud:    turns{{times: stage.Times{time.Millisecond, time.Millisecond, slow}}},
			control: turns{{times: stage.Times{time.Millisecond, time.Millisecond, slow / 2}}},
		})
	}
	if err := table.end(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		" 1.00/3.00 ", " 1.00/2.00 ", "p50 1.00 times", "0 of 2 attacks above", "p99 3.00 times", "at worst 3.00, 1 above",
		"another host of this machine: 2.00 times of all calls",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
