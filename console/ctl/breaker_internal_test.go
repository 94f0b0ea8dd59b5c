package ctl

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
)

// A text of a peer cannot pass for another field of the line.
func TestBreaker_FieldsAreNotForged(t *testing.T) {
	t.Parallel()
	for _, hostile := range []string{
		"/x target=shop because=allowed", "/x\ttarget=shop", "/x\u00a0target=shop", "/x\x1b[2J\ntarget=shop", "/x\u202etarget=shop", "/x\u2028target=shop",
	} {
		var out bytes.Buffer
		tool := &tool{out: &out}
		if err := tool.event(&adminv1.AuditEvent{Time: timestamppb.Now(), Kind: "denied", SelfId: "a", Procedure: hostile, Refusal: true, Reason: "no"}); err != nil {
			t.Fatal(err)
		}
		t.Logf("%q", out.String())
		if strings.Contains(out.String(), " target=shop") && !strings.Contains(out.String(), `path="/x`) || strings.Count(out.String(), "\n") != 1 || strings.ContainsRune(out.String(), 0x1b) {
			t.Errorf("%q forges a field: %s", hostile, out.String())
		}
	}
}
