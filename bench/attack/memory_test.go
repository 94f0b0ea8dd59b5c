package main

import (
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/attack/kinds"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

// What one identity makes a host with the default limits keep has a bound: live objects and stacks,
// however many downloads it has open that it does not read, on however many connections, and however
// many header fields its own provider answers.
func TestAudit_ATK14_WhatABadPluginMakesAHostKeep(t *testing.T) {
	t.Parallel()
	for kind, tt := range map[string]struct {
		open    int   // calls that it may have, by default
		reached int64 // bytes; fewer are no unread answers
	}{
		"downloads on 64": {1_024, 64 << 20},
		"own provider: answers of many fields that stay open":         {100, 1 << 20}, // each counts as nine
		"own provider: large answers that stay open, nothing is read": {40, 1 << 20},
		"own provider: answers of 100 fields that stay open":          {900, 16 << 20},
	} {
		t.Run(kind, func(t *testing.T) { keeps(t, kind, tt.open, tt.reached) })
	}
}

func keeps(t *testing.T, kind string, open int, reached int64) {
	t.Helper()
	const (
		steady = 1 << 20
		looks  = 30                     // in a row that see no more
		stays  = 3                      // looks in a row see what is kept, and not garbage that came meanwhile
		pause  = 100 * time.Millisecond // between them: each has the host collect its garbage, and does nothing else meanwhile
	)
	p := play{lasts: kinds.MostTime, dir: t.TempDir(), defaults: true}
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: p.dir})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.open(t.Context(), authority, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close(t.Context())
	live := func() (int, int64) {
		var now stage.Rest
		if err := s.host.Ask(stage.WordRest, &now); err != nil {
			t.Fatal(err)
		}
		return now.Calls, int64(now.Heap + now.Stacks)
	}
	_, before := live()
	k := kinds.Named("a bad plugin: " + kind)[0]
	attacker, err := stage.Start(t.Context(), roleAttacker, "-dir", p.dir, "-addr", s.addr, "-only", k.Who+": "+k.Name, "-for", p.lasts.String())
	if err != nil {
		t.Fatal(err)
	}
	defer attacker.Kill()
	var most int64
	deadline := time.Now().Add(kinds.MostTime - 5*time.Second) // a busy machine needs most of it
	for still, over := 0, 0; still < looks; still++ {
		calls, now := live()
		kept := now - before
		if over++; kept <= mostLive {
			over = 0
		}
		if over == stays {
			t.Fatalf("%d calls hold %d KiB, of at most %d", calls, kept>>10, mostLive>>10)
		}
		if kept > most+steady || calls < open || kept < reached {
			most, still = kept, 0
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d calls hold %d KiB: too few, or still more and more", calls, kept>>10)
		}
		time.Sleep(pause)
	}
	t.Logf("it holds %d KiB", most>>10)
}
