#!/usr/bin/env bash
# Guess: a lock that a host in Go holds in etcd is held for its tools in Node, which ask for the lock of that name, and so is the lead of an election: etcd3 (npm) points for
# its elections to those of etcd's client in Go, and both have one store.
# Seen: with go.etcd.io/etcd/client/v3 v3.7.3 (concurrency) and etcd3 1.1.2 (npm) both hold the lock "plugins" at once, whoever came first: Go's Mutex is the oldest of the keys
# "plugins/<lease>", Node's Lock is the key "plugins" itself, and neither looks at the other's. Of the election "leader" both are leader, as Node's has "election/" before the
# name. With "election/leader" in Go and "leader" in Node they are one election: Node waits, and leads when Go has resigned.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save etcd3@1.1.2 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	go.etcd.io/etcd/client/v3 v3.7.3
	go.etcd.io/etcd/server/v3 v3.7.3
	go.uber.org/zap v1.27.1
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/coreos/go-semver v0.3.1 // indirect
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/golang-jwt/jwt/v5 v5.3.1 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/gorilla/websocket v1.5.3 // indirect
	github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus v1.1.0 // indirect
	github.com/grpc-ecosystem/go-grpc-middleware/v2 v2.3.3 // indirect
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.29.0 // indirect
	github.com/jonboulle/clockwork v0.5.0 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_golang v1.23.2 // indirect
	github.com/prometheus/client_model v0.6.2 // indirect
	github.com/prometheus/common v0.67.5 // indirect
	github.com/prometheus/procfs v0.16.1 // indirect
	github.com/sirupsen/logrus v1.9.4 // indirect
	github.com/soheilhy/cmux v0.1.5 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	github.com/tmc/grpc-websocket-proxy v0.0.0-20220101234140-673ab2c3ae75 // indirect
	github.com/xiang90/probing v0.0.0-20221125231312-a49e3df8f510 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	go.etcd.io/etcd/api/v3 v3.7.3 // indirect
	go.etcd.io/etcd/client/pkg/v3 v3.7.3 // indirect
	go.etcd.io/etcd/pkg/v3 v3.7.3 // indirect
	go.etcd.io/raft/v3 v3.7.0 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc v0.68.0 // indirect
	go.opentelemetry.io/otel v1.45.0 // indirect
	go.opentelemetry.io/otel/exporters/otlp/otlptrace v1.45.0 // indirect
	go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc v1.45.0 // indirect
	go.opentelemetry.io/otel/metric v1.45.0 // indirect
	go.opentelemetry.io/otel/sdk v1.45.0 // indirect
	go.opentelemetry.io/otel/trace v1.45.0 // indirect
	go.opentelemetry.io/proto/otlp v1.11.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.yaml.in/yaml/v2 v2.4.3 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.15.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	gopkg.in/natefinch/lumberjack.v2 v2.2.1 // indirect
	k8s.io/utils v0.0.0-20260108192941-914a6e750570 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/embed"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func start() *embed.Etcd {
	config := embed.NewConfig()
	config.Dir = "data"
	config.LogLevel = "fatal"
	loopback := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config.ListenClientUrls, config.AdvertiseClientUrls = loopback, loopback
	config.ListenPeerUrls, config.AdvertisePeerUrls = loopback, loopback
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd, err := embed.StartEtcd(config)
	must(err)
	<-etcd.Server.ReadyNotify()
	return etcd
}

// startNode gives a function that has Node do a thing, and says what Node said.
func startNode(address string) func(string) string {
	node := exec.Command("node", "main.cjs", address)
	node.Stderr = os.Stderr
	in, err := node.StdinPipe()
	must(err)
	out, err := node.StdoutPipe()
	must(err)
	must(node.Start())
	lines := bufio.NewReader(out)
	return func(what string) string {
		_, err := io.WriteString(in, what+"\n")
		must(err)
		line, err := lines.ReadString('\n')
		must(err)
		return line
	}
}

func main() {
	ctx := context.Background()
	etcd := start()
	defer etcd.Close()
	address := etcd.Clients[0].Addr().String()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}})
	must(err)
	session, err := concurrency.NewSession(client)
	must(err)
	node := startNode(address)

	lock := concurrency.NewMutex(session, "plugins")
	must(lock.Lock(ctx))
	fmt.Print("Go holds the lock, Node's acquire: ", node("lock plugins"))
	must(lock.Unlock(ctx))
	err = lock.TryLock(ctx)
	fmt.Println("Node holds the lock, Go's TryLock:", err)
	fmt.Print("a second one of Node: ", node("again plugins"))
	other, err := concurrency.NewSession(client)
	must(err)
	err = concurrency.NewMutex(other, "plugins").TryLock(ctx)
	fmt.Println("a second one of Go:", errors.Is(err, concurrency.ErrLocked))

	first := concurrency.NewElection(session, "leader")
	must(first.Campaign(ctx, "go"))
	fmt.Print("Go leads, Node's campaign: ", node("campaign leader"))
	second := concurrency.NewElection(session, "election/shared")
	must(second.Campaign(ctx, "go"))
	fmt.Print("Go leads election/shared, Node's campaign for shared: ", node("campaign shared"))
	must(second.Resign(ctx))
	fmt.Print("Go has resigned: ", node("wait"))
}
EOT
cat > main.cjs <<'EOT'
const { Etcd3 } = require('etcd3');

const client = new Etcd3({ hosts: `http://${process.argv[2]}` });
let elected;
const acquire = (name) => client.lock(name).acquire().then(() => 'acquired', (e) => e.constructor.name);
const commands = {
  lock: acquire,
  again: acquire,
  async campaign(name) {
    const election = client.election(name);
    const campaign = election.campaign('node');
    elected = new Promise((resolve) => campaign.on('elected', () => resolve('elected')));
    // Waits until the campaign's key stands: elected or not is then decided by who was first.
    for (;;) {
      const keys = await client.getAll().prefix(`election/${name}/`).strings();
      if (Object.values(keys).includes('node')) break;
    }
    return Promise.race([elected, new Promise((resolve) => setTimeout(resolve, 10000, 'waits'))]);
  },
  wait: () => elected,
};
require('node:readline').createInterface({ input: process.stdin }).on('line', async (line) => {
  const [command, name] = line.split(' ');
  console.log(await commands[command](name));
}).on('close', () => process.exit(0));
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.etcd.io/etcd/client/v3
node -p '"etcd3 " + require("./node_modules/etcd3/package.json").version'
GOTOOLCHAIN=local go build -o locks .
timeout 120 ./locks | tee seen
cat > want <<'EOT'
Go holds the lock, Node's acquire: acquired
Node holds the lock, Go's TryLock: <nil>
a second one of Node: EtcdLockFailedError
a second one of Go: true
Go leads, Node's campaign: elected
Go leads election/shared, Node's campaign for shared: waits
Go has resigned: elected
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
