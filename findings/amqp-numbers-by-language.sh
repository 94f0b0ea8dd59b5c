#!/usr/bin/env bash
# Guess: a number that one side of AMQP 1.0 sends in a message is the same number at the other, of a type that goes by what the sender says: the protocol has
# types of its own for integers of 64 bits, and each library maps them.
# Seen: rhea 3.0.5 (npm) goes by the number's value. What it has of github.com/Azure/go-amqp v1.5.1: what is in 2^53 - 1 is a number, 9007199254740993 becomes
# ...992 without a word, in the body and as message id, while its negative and the largest uint64 are a Buffer of eight bytes. What Go has of it: 1 is a
# uint32, -1 an int32, 2^53 - 1 a uint64, 1.5 a float64, so that a property that may be negative or large is of four types in turn, and an assertion to int64
# never holds. Types that the sender names (types.wrap_long) arrive as such, times, texts, binary and lists as they were.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save rhea@3.0.5 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/Azure/go-amqp v1.5.1
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/Azure/go-amqp"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func main() {
	node := exec.Command("node", "main.mjs")
	node.Stderr = os.Stderr
	out := must(node.StdoutPipe())
	if err := node.Start(); err != nil {
		panic(err)
	}
	lines := bufio.NewReader(out)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn := must(amqp.Dial(ctx, "amqp://127.0.0.1:"+strings.TrimSpace(must(lines.ReadString('\n'))), &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()}))
	session := must(conn.NewSession(ctx, nil))
	receiver := must(session.NewReceiver(ctx, "queue", nil))
	message := must(receiver.Receive(ctx, nil))
	if err := receiver.AcceptMessage(ctx, message); err != nil {
		panic(err)
	}
	fmt.Printf("Go has: id %T", message.Properties.MessageID)
	for _, name := range []string{"one", "negative", "large", "half", "long", "time", "text"} {
		fmt.Printf(", %s %T %v", name, message.ApplicationProperties[name], message.ApplicationProperties[name])
	}
	fmt.Println()
	sender := must(session.NewSender(ctx, "queue", nil))
	if err := sender.Send(ctx, &amqp.Message{
		Value:      []any{int64(1), int64(9007199254740991), int64(9007199254740993), int64(-9007199254740993), uint64(18446744073709551615)},
		Properties: &amqp.MessageProperties{MessageID: uint64(9007199254740993)},
	}, nil); err != nil {
		panic(err)
	}
	fmt.Print(must(lines.ReadString('\n')))
	conn.Close()
	if err := node.Wait(); err != nil {
		panic(err)
	}
}
EOT
cat > main.mjs <<'EOT'
import rhea from 'rhea';

const container = rhea.create_container();
const show = (value) => (Buffer.isBuffer(value) ? 'Buffer ' + value.toString('hex') : `${typeof value} ${value}`);
container.on('sender_open', ({ sender }) => sender.set_source({ address: 'queue' }));
container.on('receiver_open', ({ receiver }) => receiver.set_target({ address: 'queue' }));
container.once('sendable', ({ sender }) => sender.send({
  message_id: 7,
  application_properties: { one: 1, negative: -1, large: 9007199254740991, half: 1.5, long: rhea.types.wrap_long(1), time: new Date(1000), text: 'x' },
  body: 'text',
}));
container.on('message', ({ message }) => {
  console.log(`Node has: id ${show(message.message_id)}, ${message.body.map(show).join(', ')}`);
  setTimeout(process.exit, 500);
});
const server = container.listen({ port: 0, host: '127.0.0.1' });
server.on('listening', () => console.log(server.address().port));
EOT
cat > want <<'EOT'
Go has: id uint64, one uint32 1, negative int32 -1, large uint64 9007199254740991, half float64 1.5, long int64 1, time time.Time 1970-01-01 00:00:01 +0000 UTC, text string x
Node has: id number 9007199254740992, number 1, number 9007199254740991, number 9007199254740992, Buffer ffdfffffffffffff, Buffer ffffffffffffffff
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/Azure/go-amqp
node -p '"rhea " + JSON.parse(require("fs").readFileSync("node_modules/rhea/package.json")).version'
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
