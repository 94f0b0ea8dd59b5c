package ctl

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
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
