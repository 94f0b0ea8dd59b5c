package main

import (
	"errors"
	"fmt"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

var errFields = errors.New("-fields is open, secure or nothing")

// fill fills in what a client did not need before: leave to speak plaintext, or what it
// needs for TLS.
func fill(cfg *connectplugin.ClientConfig, fields string) error {
	switch fields {
	case "":
		return nil
	case "open":
		cfg.AllowInsecure = true

		return nil
	case "secure":
		credentials, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: "run/greeter"})
		cfg.TLS = credentials

		return err
	default:
		return fmt.Errorf("%q: %w", fields, errFields)
	}
}
