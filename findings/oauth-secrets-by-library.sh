#!/usr/bin/env bash
# Guess: a client of OAuth 2.0 that proves itself by HTTP Basic is known to its server whatever characters its secret has, such as a random one in base64: RFC 6749 (2.3.1) has the id and the secret
# written as a form's values before they go into the header, and read so.
# Seen: golang.org/x/oauth2 v0.38.0 (AuthStyleInHeader), openid-client 6.9.0 and simple-oauth2 5.1.0 (npm) write them so, and oidc-provider 9.13.3 (npm) reads them so. github.com/go-oauth2/oauth2/v4
# v4.5.4 and @node-oauth/oauth2-server 5.3.0 (npm) take what stands there as it is: with the secret "a+b/c=" each of these clients is refused there, 401. openid-client writes "-", ".", "_" and "~" with
# % as well, and is refused there with "abc-def" too.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save oidc-provider@9.13.3 openid-client@6.9.0 simple-oauth2@5.1.0 @node-oauth/oauth2-server@5.3.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/go-oauth2/oauth2/v4 v4.5.4
	golang.org/x/oauth2 v0.38.0
)
EOT
cat > servers.mjs <<'EOT'
import { createServer } from 'node:http';
import OAuth2Server from '@node-oauth/oauth2-server';
import { Provider } from 'oidc-provider';

const clients = JSON.parse(process.argv[2]);
const listen = (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}`)));

const standard = createServer();
const issuer = await listen(standard);
const provider = new Provider(issuer, {
  clients: Object.entries(clients).map(([id, secret]) => ({
    client_id: id, client_secret: secret, grant_types: ['client_credentials'], redirect_uris: [], response_types: [], token_endpoint_auth_method: 'client_secret_basic',
  })),
  features: { clientCredentials: { enabled: true } },
});
standard.on('request', provider.callback());

const other = new OAuth2Server({ model: {
  getClient: async (id, secret) => clients[id] === secret && { id, grants: ['client_credentials'] },
  getUserFromClient: async () => ({}),
  saveToken: async (token, client, user) => ({ ...token, client, user }),
  validateScope: async () => [],
} });
const address = await listen(createServer((request, answer) => {
  let body = '';
  request.on('data', (data) => { body += data; }).on('end', async () => {
    const response = new OAuth2Server.Response({});
    await other.token(new OAuth2Server.Request({ headers: request.headers, method: request.method, query: {}, body: Object.fromEntries(new URLSearchParams(body)) }), response).catch(() => {});
    answer.writeHead(response.status, { 'content-type': 'application/json' }).end(JSON.stringify(response.body));
  });
}));
console.log(JSON.stringify({ 'oidc-provider': `${issuer}/token`, '@node-oauth/oauth2-server': `${address}/token` }));
process.stdin.on('end', () => process.exit(0)).resume();
EOT
cat > client.mjs <<'EOT'
import * as openid from 'openid-client';
import simple from 'simple-oauth2';

const [, , address, id, secret] = process.argv;
const told = (promise) => promise.then(() => 'token', (e) => `refused, ${e.status ?? e.output?.statusCode}`);
const configuration = new openid.Configuration({ issuer: 'http://localhost', token_endpoint: address }, id, undefined, openid.ClientSecretBasic(secret));
openid.allowInsecureRequests(configuration);
console.log(`openid-client: ${await told(openid.clientCredentialsGrant(configuration))}`);
const { origin, pathname } = new URL(address);
console.log(`simple-oauth2: ${await told(new simple.ClientCredentials({ client: { id, secret }, auth: { tokenHost: origin, tokenPath: pathname } }).getToken({}))}`);
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"

	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/server"
	"github.com/go-oauth2/oauth2/v4/store"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// clients has the secret of each.
var clients = map[string]string{"letters": "abcdef", "hyphen": "abc-def", "base64": "a+b/c="}

func serve() string {
	manager := manage.NewDefaultManager()
	manager.MustTokenStorage(store.NewMemoryTokenStore())
	known := store.NewClientStore()
	for id, secret := range clients {
		must(known.Set(id, &models.Client{ID: id, Secret: secret}))
	}
	manager.MapClientStorage(known)
	s := server.NewDefaultServer(manager)
	s.SetClientInfoHandler(server.ClientBasicHandler)
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.HandleTokenRequest(w, r) })).URL + "/token"
}

func main() {
	known, err := json.Marshal(clients)
	must(err)
	node := exec.Command("node", "servers.mjs", string(known))
	in, err := node.StdinPipe()
	must(err)
	out, err := node.StdoutPipe()
	must(err)
	must(node.Start())
	line, err := bufio.NewReader(out).ReadBytes('\n')
	must(err)
	addresses := map[string]string{"go-oauth2/oauth2": serve()}
	must(json.Unmarshal(line, &addresses))

	for _, name := range []string{"oidc-provider", "@node-oauth/oauth2-server", "go-oauth2/oauth2"} {
		for _, id := range slices.Sorted(maps.Keys(clients)) {
			fmt.Printf("%s, secret %s\n", name, clients[id])
			config := clientcredentials.Config{ClientID: id, ClientSecret: clients[id], TokenURL: addresses[name], AuthStyle: oauth2.AuthStyleInHeader}
			_, err := config.Token(context.Background())
			seen := "token"
			if refused := (*oauth2.RetrieveError)(nil); errors.As(err, &refused) {
				seen = fmt.Sprint("refused, ", refused.Response.StatusCode)
			}
			fmt.Println("x/oauth2:", seen)
			client := exec.Command("node", "client.mjs", addresses[name], id, clients[id])
			client.Stdout, client.Stderr = os.Stdout, os.Stderr
			must(client.Run())
		}
	}
	must(in.Close())
	must(node.Wait())
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m golang.org/x/oauth2 github.com/go-oauth2/oauth2/v4
node -p '["oidc-provider", "openid-client", "simple-oauth2", "@node-oauth/oauth2-server"].map((name) => name + " " + JSON.parse(require("fs").readFileSync(`node_modules/${name}/package.json`)).version).join("\n")'
GOTOOLCHAIN=local go build -o clients .
timeout 300 ./clients | tee seen
cat > want <<'EOT'
oidc-provider, secret a+b/c=
x/oauth2: token
openid-client: token
simple-oauth2: token
oidc-provider, secret abc-def
x/oauth2: token
openid-client: token
simple-oauth2: token
oidc-provider, secret abcdef
x/oauth2: token
openid-client: token
simple-oauth2: token
@node-oauth/oauth2-server, secret a+b/c=
x/oauth2: refused, 401
openid-client: refused, 401
simple-oauth2: refused, 401
@node-oauth/oauth2-server, secret abc-def
x/oauth2: token
openid-client: refused, 401
simple-oauth2: token
@node-oauth/oauth2-server, secret abcdef
x/oauth2: token
openid-client: token
simple-oauth2: token
go-oauth2/oauth2, secret a+b/c=
x/oauth2: refused, 401
openid-client: refused, 401
simple-oauth2: refused, 401
go-oauth2/oauth2, secret abc-def
x/oauth2: token
openid-client: refused, 401
simple-oauth2: token
go-oauth2/oauth2, secret abcdef
x/oauth2: token
openid-client: token
simple-oauth2: token
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
