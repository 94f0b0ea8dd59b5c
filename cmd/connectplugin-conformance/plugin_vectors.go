package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// vector is a handshake whose proofs the kit knows. It is new at each run: nobody can have its answers ready.
type vector struct {
	name            string
	secret, binding []byte
	request         *connectpluginv1.HandshakeRequest
	response        *connectpluginv1.HandshakeResponse
}

// exchange is a vector as the subject gets it, in hexadecimal: the messages in binary, the request without its proof.
type exchange struct {
	Secret   string `json:"secret"`
	Binding  string `json:"binding"` // empty where there is none
	Request  string `json:"request"`
	Response string `json:"response"`
}

// proven is what the subject makes of one: the proof of the client, and whether that of the host holds.
type proven struct {
	Proof  string `json:"proof"`
	Proven bool   `json:"proven"`
}

// vectors returns handshakes of every kind of field, bound to a connection and not.
func vectors() ([]*vector, error) {
	few := func() (*connectpluginv1.HandshakeRequest, *connectpluginv1.HandshakeResponse) {
		return &connectpluginv1.HandshakeRequest{SelfId: selfSubject, ClientNonce: newSecret(), IssuedAt: timestamppb.Now()},
			&connectpluginv1.HandshakeResponse{RuntimeId: lyingRuntime, ServerNonce: newSecret()}
	}
	request, response := few()
	bound, answer := few()
	odd, oddAnswer := few()
	odd.ProtoReflect().SetUnknown([]byte{0xfa, 0x3e, 1, 'x'}) // field 1007
	oddAnswer.ProtoReflect().SetUnknown([]byte{0xf8, 0x3e, 0xac, 0x02})
	all := []*vector{
		{name: "few fields", request: request, response: response},
		{name: "bound to a connection", request: bound, response: answer, binding: newSecret()},
		{name: "fields that the receiver does not know", request: odd, response: oddAnswer},
		{name: "every field", request: fullRequest(), response: fullResponse(), binding: newSecret()},
	}
	for _, v := range all {
		if err := v.prove(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func fullRequest() *connectpluginv1.HandshakeRequest {
	return &connectpluginv1.HandshakeRequest{
		CoreProtocolVersion: 1, AppProtocolVersion: -2, MinProtocolVersion: 1, MaxProtocolVersion: highestApp,
		MagicCookieKey: "KEY", MagicCookieValue: "värde", RequestedPlugins: []string{"b", "", "a"},
		ClientMetadata: map[string]string{"a": "1", "aa": "", "Z": "2", "": "3", "ä": "4", "\U0001F600": "5", "\uFF5E": "6"},
		SelfId:         selfSubject, SelfVersion: version, ClientNonce: newSecret(), IssuedAt: &timestamppb.Timestamp{Seconds: -1, Nanos: 1},
		Provides: []*connectpluginv1.ServiceDeclaration{{Type: typeSubject, Version: version, Path: base}, {}},
		Requires: []*connectpluginv1.ServiceDependency{{Type: typeKit, MinVersion: version, RequiredForStartup: true}, {WatchForChanges: true}},
	}
}

func fullResponse() *connectpluginv1.HandshakeResponse {
	m := fullRequest()
	return &connectpluginv1.HandshakeResponse{
		CoreProtocolVersion: 1, AppProtocolVersion: highestApp, MinProtocolVersion: lowestApp,
		Plugins:          []*connectpluginv1.PluginInfo{{Name: "p", Version: version, ServicePath: base, Provides: m.GetProvides(), Requires: m.GetRequires()}, {}},
		ServerMetadata:   m.GetClientMetadata(),
		HostCapabilities: []*connectpluginv1.Capability{{Type: "logger", Version: version, Endpoint: "/"}},
		RuntimeId:        lyingRuntime, RuntimeToken: "token", ServerNonce: newSecret(), TokenExpiresAt: &timestamppb.Timestamp{},
		Warnings: []string{"", "föråldrad"},
	}
}

// prove makes the secret and the proofs.
func (v *vector) prove() error {
	v.secret = newSecret()
	key, err := transcript.ClientKey(v.secret, v.request.GetClientNonce())
	if err != nil {
		return fmt.Errorf("vector: %w", err)
	}
	v.request.ClientProof = key.Proof(requestTranscript(v.request, v.binding))
	v.response.ChallengeResponse, err = responseProof(v.request, v.response, v.secret, v.binding)
	return err
}

// exchange is the vector with another answer, for the subject.
func (v *vector) exchange(response *connectpluginv1.HandshakeResponse) (string, error) {
	bare := proto.CloneOf(v.request)
	bare.ClientProof = nil
	request, err := proto.Marshal(bare)
	if err != nil {
		return "", fmt.Errorf("vector: %w", err)
	}
	answer, err := proto.Marshal(response)
	if err != nil {
		return "", fmt.Errorf("vector: %w", err)
	}
	said, err := json.Marshal(exchange{
		Secret: hex.EncodeToString(v.secret), Binding: hex.EncodeToString(v.binding),
		Request: hex.EncodeToString(request), Response: hex.EncodeToString(answer),
	})
	if err != nil {
		return "", fmt.Errorf("vector: %w", err)
	}
	return string(said), nil
}

// holds has the subject prove a vector, and judge its answer and one that was altered.
func (v *vector) holds(ctx context.Context, s *stub) error {
	altered := proto.CloneOf(v.response)
	altered.Warnings = append(altered.Warnings, "altered")
	for _, answer := range []*connectpluginv1.HandshakeResponse{v.response, altered} {
		said, err := v.exchange(answer)
		if err != nil {
			return err
		}
		line, err := s.unary(ctx, "Prove", said)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		var got proven
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		want := proven{Proof: hex.EncodeToString(v.request.GetClientProof()), Proven: answer == v.response}
		if got != want {
			return fmt.Errorf("%w: %s: %+v instead of %+v", errWrongAnswer, v.name, got, want)
		}
	}
	return nil
}

// provesVectors has the subject prove each vector.
func (p *pluginTable) provesVectors(ctx context.Context) error {
	all, err := vectors()
	if err != nil {
		return err
	}
	return p.with(ctx, p.mine(), func(s *stub) error {
		for _, v := range all {
			if err := v.holds(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
}

// proveVector is what a subject on this library does: it proves a request and judges the answer to it.
func proveVector(_ context.Context, value string) (string, error) {
	var said exchange
	if err := json.Unmarshal([]byte(value), &said); err != nil {
		return "", fmt.Errorf("exchange: %w", err)
	}
	var raw [4][]byte
	for i, field := range []string{said.Secret, said.Binding, said.Request, said.Response} {
		b, err := hex.DecodeString(field)
		if err != nil {
			return "", fmt.Errorf("exchange: %w", err)
		}
		if len(b) > 0 {
			raw[i] = b
		}
	}
	request, response := &connectpluginv1.HandshakeRequest{}, &connectpluginv1.HandshakeResponse{}
	for m, b := range map[proto.Message][]byte{request: raw[2], response: raw[3]} {
		if err := proto.Unmarshal(b, m); err != nil {
			return "", fmt.Errorf("exchange: %w", err)
		}
	}
	key, err := transcript.ClientKey(raw[0], request.GetClientNonce())
	if err != nil {
		return "", fmt.Errorf("exchange: %w", err)
	}
	request.ClientProof = key.Proof(requestTranscript(request, raw[1]))
	want, err := responseProof(request, response, raw[0], raw[1])
	if err != nil {
		return "", err
	}
	line, err := json.Marshal(proven{Proof: hex.EncodeToString(request.GetClientProof()), Proven: bytes.Equal(want, response.GetChallengeResponse())})
	if err != nil {
		return "", fmt.Errorf("proof: %w", err)
	}
	return string(line), nil
}
