package edge_test

import (
	"testing"

	"golang.org/x/net/http2"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// Answers that were given and that their peer has no window for count as its requests did, whatever they are: as many wait,
// the others are reset, and those that were taken make room.
func TestAudit_ATK05_AnswersThatNobodyTakesAreBounded(t *testing.T) {
	t.Parallel()
	const most, asked = 12, 20
	for name, tt := range map[string]struct {
		path, kind string
		known      bool
	}{
		"a refusal":                {"/nothing.v1.Here/Is", "application/proto", false},
		"a malformed handshake":    {handshakeProc, "application/json", false},
		"a call":                   {connectpluginv1connect.HealthServiceCheckProcedure, "application/proto", true},
		"a refusal of an identity": {"/connectplugin.v1.ServiceRegistry/Nothing", "application/proto", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(l *connectplugin.Limits) { l.MaxOpenCallsPerIdentity = most / 4 }, nil)
			fields := [][2]string{{"content-type", tt.kind}}
			if tt.known {
				c := r.Enrol(t, "registrar", nil)
				fields = append(fields, [2]string{"x-plugin-runtime-id", c.RuntimeID()}, [2]string{"authorization", "Bearer " + c.RuntimeToken()})
			}
			f := frames(t, r)
			for round := range uint32(2) {
				if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
					t.Fatal(err)
				}
				for i := range uint32(asked) {
					block := headBlock(r.Addr(), tt.path, fields...)
					if err := f.WriteHeaders(http2.HeadersFrameParam{
						StreamID: 2*(round*asked+i) + 1, BlockFragment: block, EndHeaders: true, EndStream: true,
					}); err != nil {
						t.Fatal(err)
					}
				}
				for range asked - most {
					if reset, _ := await(t, f, http2.FrameRSTStream).(*http2.RSTStreamFrame); reset.ErrCode != http2.ErrCodeEnhanceYourCalm {
						t.Fatalf("reset with %v", reset.ErrCode)
					}
				}
				if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16}); err != nil {
					t.Fatal(err)
				}
				for range most {
					await(t, f, http2.FrameData)
				}
			}
			events, _ := limitedOf(r.Host, "Limits.MaxOpenCallsPerIdentity")
			if len(events) == 0 || events[0].Peer != "127.0.0.1" || tt.known != (events[0].SelfID == "registrar") {
				t.Errorf("the audit has %v", events)
			}
		})
	}
}
