package ctl

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/internal/glyphs"
)

// A text of a peer passes for no other field of its line.
func TestTail_ValuesAreNoFields(t *testing.T) {
	t.Parallel()
	for hostile, want := range map[string]string{
		"/x target=shop because=allowed": `path="/x target=shop because=allowed" because=no`,
		"/x\ttarget=shop":                `path="/x\ttarget=shop" because=no`,
		"/x\x1b[2J\ntarget=shop":         `path="/x\x1b[2J\ntarget=shop" because=no`,
		`/x" target="shop`:               `path="/x\" target=\"shop" because=no`,
		"/x.v1.Y/Z":                      "path=/x.v1.Y/Z because=no",
		"/x\U000e0041\ufe0f\u00ad":       "path=/x\ufffd\ufffd\ufffd because=no",
	} {
		var out strings.Builder
		e := &adminv1.AuditEvent{Time: timestamppb.Now(), Kind: "denied", SelfId: "a", Procedure: hostile, Reason: "no"}
		if err := (&tool{out: &out}).event(e); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !strings.HasSuffix(got, " a  "+want+"\n") && !strings.HasSuffix(got, " "+want+"\n") {
			t.Errorf("%q is shown as %q", hostile, got)
		}
	}
}

// Why it asks for a grant is a plugin's word, and passes for no other field, nor for a count.
func TestTail_AReasonOfAPluginIsNoField(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]string{
		"granted": ` because="logs grant=other (9 times)"`, // as a plugin said it
		"denied":  ` because=logs grant=other (9 times)`,   // as the host did
	} {
		var out strings.Builder
		e := &adminv1.AuditEvent{Time: timestamppb.Now(), Kind: kind, SelfId: "a", Reason: "logs grant=other (9 times)"}
		if err := (&tool{out: &out}).event(e); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !strings.HasSuffix(got, want+"\n") {
			t.Errorf("%s is shown as %q", kind, got)
		}
	}
}

// JSON on a terminal steers it no more than a table does, and says the same to a program.
func TestJSON_SteersNoTerminal(t *testing.T) {
	t.Parallel()
	const hostile = "/x\x1b[2J\u009b2J\u009d0;owned\u009c\u202e\x7f\U000e0041 ü\u200b🚀"
	for _, stream := range []bool{true, false} {
		var out strings.Builder
		if err := (&tool{out: &out}).message(&adminv1.AuditEvent{Procedure: hostile}, stream); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.String() {
			if r != '\n' && !glyphs.Seen(r) {
				t.Errorf("%U is in %q", r, out.String())
			}
		}
		var e adminv1.AuditEvent
		if err := protojson.Unmarshal([]byte(out.String()), &e); err != nil || e.GetProcedure() != hostile {
			t.Errorf("a program reads %q: %v", e.GetProcedure(), err)
		}
	}
}
