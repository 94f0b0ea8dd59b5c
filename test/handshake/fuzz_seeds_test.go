package handshake_test

import (
	"testing"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/alter"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// seedHandshakes seeds with honest handshakes of everybody and with all that the
// tests of alterations do to one.
func seedHandshakes(f *testing.F) {
	f.Helper()
	for i, selfID := range []string{"secret", "open", "opened", "certified", "both", "nothing", "unknown", "", "../../etc"} {
		m := wire.FreshRequest(selfID)
		m.AppProtocolVersion = fuzzedVersionMin
		body := hosttest.MustMarshal(f, m)
		for range 2 { // the second is a replay
			f.Add(body, uint8(0), uint8(i), uint8(proofUnbound), uint8(credentialNone), "", "")
		}
		for peer := range uint8(3) {
			for proof := range uint8(proofs) {
				f.Add(body, peer, uint8(i), proof+freshProof, uint8(credentialNone), "", "")
			}
			f.Add(body, peer, uint8(i), uint8(proofAsIs), uint8(credentialLive), "", "")
		}
		f.Add(body, uint8(0), uint8(i), uint8(proofAsIs), uint8(credentialMadeUp), "", "AAAA")
		f.Add(body, uint8(0), uint8(i), uint8(proofAsIs), uint8(credentialForeign), "nobody", "")
		f.Add(body, uint8(0), uint8(i), uint8(proofAsIs), uint8(rawBody), "", "") // without an envelope
	}
	for i, a := range alter.Every((&connectpluginv1.HandshakeRequest{}).ProtoReflect().Descriptor(), 1) {
		m := wire.FreshRequest("secret")
		m.AppProtocolVersion, m.MinProtocolVersion, m.MaxProtocolVersion = fuzzedVersionMin, 1, fuzzedVersionMax
		m.Provides = []*connectpluginv1.ServiceDeclaration{{Type: "a", Version: "1.0.0", Path: "/a/"}, {Type: "b", Version: "1.0.0"}}
		m.Requires = []*connectpluginv1.ServiceDependency{{Type: "c", MinVersion: "1.0.0"}, {Type: "d"}}
		m.ClientMetadata, m.RequestedPlugins = map[string]string{"k": "v", "l": "w"}, []string{"x", "y"}
		a.Apply(m.ProtoReflect())
		f.Add(hosttest.MustMarshal(f, m), uint8(0), uint8(i), uint8(proofUnbound), uint8(credentialNone), "", "")
	}
}
