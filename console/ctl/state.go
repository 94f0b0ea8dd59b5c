package ctl

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
)

const defaultEvery = time.Second

// state is what `watch` compares: a line for each plugin, by runtime id or the name of its launch.
type state map[string]string

// change is what became different.
type change struct{ colour, text string }

func stateOf(s *adminv1.Snapshot) state {
	out := state{}
	for _, p := range s.GetPlugins() {
		key, what := p.GetRuntimeId(), healthOf(p)
		if key == "" {
			key, what = "launch "+p.GetLaunch().GetName(), p.GetLaunch().GetState()
		}
		provides := "nothing"
		if services := p.GetServices(); len(services) > 0 {
			provides = "[" + strings.Join(services, " ") + "]"
		}
		out[key] = fmt.Sprintf("%s is %s and provides %s", p.GetSelfId(), cmp.Or(what, "of unknown health"), provides)
	}
	return out
}

// since says what is different from a state before, sorted.
func (s state) since(before state) []change {
	var out []change
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if _, ok := s[key]; !ok {
			out = append(out, change{red, "- " + key + "  gone: " + before[key]})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		was, ok := before[key]
		switch {
		case !ok:
			out = append(out, change{green, "+ " + key + "  " + s[key]})
		case was != s[key]:
			out = append(out, change{yellow, "~ " + key + "  " + s[key]})
		}
	}
	return out
}
