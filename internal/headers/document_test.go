package headers

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every name that the rules know stands in the document, and the document knows no other.
func TestAudit_USE13_TheDocumentHasEveryName(t *testing.T) {
	t.Parallel()

	raw, err := os.ReadFile("../../docs/metadata.md")
	if err != nil {
		t.Fatal(err)
	}

	sections := strings.Split(string(raw), "\n## ")
	if len(sections) != 5 {
		t.Fatalf("%d sections", len(sections))
	}

	var passing, not []string

	for name, d := range protocolFields {
		if d == noDirection {
			not = append(not, name)
		} else {
			passing = append(passing, name)
		}
	}

	for section, want := range map[string][]string{
		sections[1]: slices.Concat(passing, []string{
			"Te", "trailers", "-", "_", ".", "Trailer-", CallerID, CallerSelfID, CallerVersion,
		}),
		sections[2]: slices.Concat(not, reservedFields, reservedPrefixes, reservedParts),
		sections[3]: slices.Concat(neverAdded, neverPrefixes, []string{"ServeConfig.PassMetadata"}),
	} {
		listed, known := map[string]bool{}, map[string]bool{}
		for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(strings.ReplaceAll(section, "```", ""), -1) {
			listed[m[1]] = true
		}

		for _, name := range want {
			known[name] = true
		}

		if !maps.Equal(listed, known) {
			for name := range listed {
				if !known[name] {
					t.Errorf("the document has %q, the rules do not", name)
				}
			}

			for name := range known {
				if !listed[name] {
					t.Errorf("the rules have %q, the document does not", name)
				}
			}
		}
	}
}

// The directions in the document are those of the rules.
func TestAudit_USE13_TheDocumentHasEveryDirection(t *testing.T) {
	t.Parallel()

	raw, err := os.ReadFile("../../docs/metadata.md")
	if err != nil {
		t.Fatal(err)
	}

	rows := 0

	for line := range strings.Lines(string(raw)) {
		columns := strings.Split(line, "|")
		if len(columns) != 4 || !strings.Contains(columns[1], "requests") && !strings.Contains(columns[1], "responses") {
			continue
		}

		rows++

		want := noDirection
		for word, d := range map[string]Direction{"requests": Request, "responses": Response, "trailers": Trailer} {
			if strings.Contains(columns[1], word) {
				want |= d
			}
		}

		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(columns[2], -1) {
			if got := protocolFields[m[1]]; got != want {
				t.Errorf("%s passes in %v, the document says %v", m[1], got, want)
			}
		}
	}

	if rows != 5 {
		t.Errorf("%d rows of directions", rows)
	}
}

// What an operator adds passes in every direction; what could harm a connection or give the
// host's own credentials away cannot be added, however it is spelled.
func TestAudit_USE13_NamesThatAreAdded(t *testing.T) {
	t.Parallel()

	added := []string{"x-api-key", "Cookie", "X-B3-TraceId", "Accept-Language", "X-Forwarded-For", "x_session_id", "Set-Cookie"}
	rules := NewRules().With(added, nil)

	for _, name := range []string{"X-Api-Key", "Cookie", "X-B3-Traceid", "Accept-Language", "X-Forwarded-For", "X_session_id", "Set-Cookie"} {
		for _, d := range []Direction{Request, Response, Trailer} {
			if !rules.Passes(d, name) || NewRules().Passes(d, name) {
				t.Errorf("%s in %v: %t, without it %t", name, d, rules.Passes(d, name), NewRules().Passes(d, name))
			}
		}

		if !rules.Passes(Response, "Trailer-"+name) || rules.Passes(Request, "Trailer-"+name) {
			t.Errorf("%s as a trailer of a unary call", name)
		}
	}

	never := slices.Concat(neverAdded, neverPrefixes, slices.Collect(maps.Keys(protocolFields)), []string{
		"authorization", "X-Plugin-Runtime-Id", "x-plugin-caller-id", "X_Plugin_Caller_Id", "connection", "PROXY-AUTHORIZATION",
		"www_authenticate", "Grpc-Status", "content-type", "", "a b", "x\r\ny", "ü",
	})
	for _, name := range never {
		if protocolFields[name] == noDirection && strings.HasPrefix(name, "X-B3") || name == "B3" {
			continue
		}

		if CheckName(name) == nil {
			t.Errorf("%q can be added", name)
		}

		if rules := NewRules().With([]string{name}, nil); len(rules.added) > 0 {
			t.Errorf("%q was added", name)
		}
	}

	if reserved := NewRules("X-Api-Key").With(added, nil); reserved.Passes(Request, "X-Api-Key") {
		t.Error("a reserved name passes because it was added")
	}
}

// Each name is told of once, so many at most, and none that the host takes off every call.
func TestAudit_USE13_WhatIsDroppedIsToldOnce(t *testing.T) {
	t.Parallel()

	told := map[string]int{}
	rules := NewRules().With(nil, func(_ Direction, name string) { told[name]++ })
	header := map[string][]string{
		"X-Request-Id": {"1"}, "Cookie": {"1"}, "X-Forwarded-For": {"1"}, "Authorization": {"1"}, "X-Plugin-Runtime-Id": {"1"},
		"Connection": {"x-hop"}, "X-Hop": {"1"},
	}

	for range 3 {
		rules.Each(Request, header, func(name, _ string) {
			if name != "X-Request-Id" {
				t.Errorf("%s passes", name)
			}
		})
	}

	if want := map[string]int{"Cookie": 1, "X-Forwarded-For": 1, "X-Hop": 1}; !maps.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}

	for i := range 1000 {
		rules.Drop(Response, "Cookie"+strings.Repeat("x", i))
	}

	if len(told) != maxDropped {
		t.Errorf("told of %d names, want %d", len(told), maxDropped)
	}
}
