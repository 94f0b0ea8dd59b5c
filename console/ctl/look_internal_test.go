package ctl

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
)

// A launched plugin that is down says why, and when it starts again.
func TestPlugins_SayWhyOneIsDown(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := &adminv1.Snapshot{Plugins: []*adminv1.PluginInfo{{SelfId: "ledger", Launch: &adminv1.LaunchInfo{
		Name: "ledger", State: "broken", Error: "it said:\tno database", NextStart: timestamppb.New(time.Now().Add(90 * time.Minute)),
	}}}}
	if err := (&tool{out: &out}).showPlugins(s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"broken, starts in 1h", "it said: no database"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

// Somebody who watches reads sentences.
func TestState_Sentences(t *testing.T) {
	t.Parallel()
	there := stateOf(&adminv1.Snapshot{Plugins: []*adminv1.PluginInfo{{SelfId: "operator", RuntimeId: "operator-1"}}})
	if came := there.since(state{}); len(came) != 1 || came[0].text != "+ operator-1  operator is of unknown health and provides nothing" {
		t.Errorf("came: %+v", came)
	}
	if went := (state{}).since(there); len(went) != 1 || !strings.Contains(went[0].text, "- operator-1  gone: operator") {
		t.Errorf("went: %+v", went)
	}
}
