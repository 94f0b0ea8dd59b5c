package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/http"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

const (
	healthKey     = 16 // bytes of the token's digest
	tooLong       = 65 // bytes of a challenge
	wrongRuntime  = "conformance-subject-other"
	healthPurpose = "connectplugin health v1"
)

// proves has the subject answer the challenges of a health question. The kit knows its token from the handshake.
func (p *pluginTable) proves(ctx context.Context) error {
	config, err := p.stage.authority.HostTLS()
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	client := direct(config)
	defer client.CloseIdleConnections()
	id, challenge := p.status.RuntimeID, newSecret()
	ask := func(id string, challenge []byte) ([]byte, error) { return p.challenge(ctx, client, id, challenge) }
	got, err := ask(id, challenge)
	if err != nil {
		return err
	}
	for _, token := range p.stage.record.tokens() {
		if hmac.Equal(got, healthProof(token, id, challenge)) {
			_, other := ask(wrongRuntime, challenge)
			if err := wants(other, connect.CodeNotFound); err != nil {
				return err
			}
			_, long := ask(id, make([]byte, tooLong))
			return wants(long, connect.CodeInvalidArgument)
		}
	}
	return fmt.Errorf("%w: the proof of %d bytes is not that of its token", errWrongAnswer, len(got))
}

func (p *pluginTable) challenge(ctx context.Context, client *http.Client, id string, challenge []byte) ([]byte, error) {
	resp, err := connectpluginv1connect.NewPluginControlClient(client, p.status.Endpoint, p.mine()...).
		GetHealth(ctx, connect.NewRequest(&connectpluginv1.GetHealthRequest{RuntimeId: id, Challenge: challenge}))
	if err != nil {
		return nil, fmt.Errorf("GetHealth: %w", err)
	}
	return resp.Msg.GetProof(), nil
}

// healthProof is the proof that docs/protocol.md asks for.
func healthProof(token, runtimeID string, challenge []byte) []byte {
	digest := sha256.Sum256([]byte(token))
	mac := hmac.New(sha256.New, digest[:healthKey])
	t := transcript.New(healthPurpose)
	t.Bytes([]byte(runtimeID))
	t.Bytes(challenge)
	_, _ = mac.Write(t.Encoded())
	return mac.Sum(nil)
}
