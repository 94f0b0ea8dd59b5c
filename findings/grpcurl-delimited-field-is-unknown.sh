#!/usr/bin/env bash
# Guess: grpcurl, which learns of a field by reflection that it is DELIMITED (editions; a group in proto2) and shows it so in
# "describe", sends it in that form, and reads it.
# Seen: grpcurl 1.9.4 sends such a field of edition 2023 length-prefixed and says nothing. The service, a handler of connect-go 1.21.1
# with connectrpc.com/grpcreflect v1.3.1 and google.golang.org/protobuf v1.36.12, has an unknown field and not the one that was set, and
# where it sends back what it got, grpcurl shows the field as if all were well. It reads the right form too. A client of connect-go with
# the same descriptor sets the field.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=local
GOFLAGS=-mod=mod GOBIN="$dir" go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	connectrpc.com/grpcreflect v1.3.1
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// describe makes the descriptor of
//
//	edition = "2023";
//	package e;
//	message Node {
//	  string name = 1;
//	  Node next = 2 [features.message_encoding = DELIMITED];
//	}
//	service Tree {
//	  rpc Echo(Node) returns (Node); // what came
//	  rpc Make(Node) returns (Node); // one with a next of its own
//	}
func describe() protoreflect.FileDescriptor {
	optional := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	delimited := &descriptorpb.FieldOptions{Features: &descriptorpb.FeatureSet{MessageEncoding: descriptorpb.FeatureSet_DELIMITED.Enum()}}
	method := func(name string) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{Name: &name, InputType: proto.String(".e.Node"), OutputType: proto.String(".e.Node")}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("e.proto"), Package: proto.String("e"), Syntax: proto.String("editions"), Edition: descriptorpb.Edition_EDITION_2023.Enum(),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Node"), Field: []*descriptorpb.FieldDescriptorProto{
			{Name: proto.String("name"), Number: proto.Int32(1), Label: optional, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()},
			{Name: proto.String("next"), Number: proto.Int32(2), Label: optional, Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".e.Node"), Options: delimited},
		}}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Tree"), Method: []*descriptorpb.MethodDescriptorProto{method("Echo"), method("Make")}}},
	}, nil)
	if err != nil {
		panic(err)
	}
	return file
}

func node(d protoreflect.MessageDescriptor, name string) *dynamicpb.Message {
	m := dynamicpb.NewMessage(d)
	m.Set(d.Fields().ByName("name"), protoreflect.ValueOfString(name))
	return m
}

func main() {
	file := describe()
	d := file.Messages().Get(0)
	next := d.Fields().ByName("next")
	parent := func(name string) *dynamicpb.Message {
		m := node(d, name)
		m.Set(next, protoreflect.ValueOfMessage(node(d, "child of "+name)))
		return m
	}
	if len(os.Args) > 1 {
		client := connect.NewClient[dynamicpb.Message, dynamicpb.Message](http.DefaultClient, "http://"+os.Args[1]+"/e.Tree/Echo",
			connect.WithSchema(file.Services().Get(0).Methods().Get(0)), connect.WithResponseInitializer(func(_ connect.Spec, m any) error {
				*m.(*dynamicpb.Message) = *dynamicpb.NewMessage(d)
				return nil
			}))
		if _, err := client.CallUnary(context.Background(), connect.NewRequest(parent("go"))); err != nil {
			panic(err)
		}
		return
	}
	mux := http.NewServeMux()
	handle := func(method protoreflect.MethodDescriptor, answer func(*dynamicpb.Message) *dynamicpb.Message) {
		path := "/e.Tree/" + string(method.Name())
		mux.Handle(path, connect.NewUnaryHandler(path, func(_ context.Context, r *connect.Request[dynamicpb.Message]) (*connect.Response[dynamicpb.Message], error) {
			fmt.Printf("service: name %q, next set: %t, unknown: %q\n", r.Msg.Get(d.Fields().ByName("name")), r.Msg.Has(next), r.Msg.GetUnknown())
			return connect.NewResponse(answer(r.Msg)), nil
		}, connect.WithSchema(method), connect.WithRequestInitializer(func(_ connect.Spec, m any) error {
			*m.(*dynamicpb.Message) = *dynamicpb.NewMessage(d)
			return nil
		})))
	}
	methods := file.Services().Get(0).Methods()
	handle(methods.ByName("Echo"), func(m *dynamicpb.Message) *dynamicpb.Message { return m })
	handle(methods.ByName("Make"), func(*dynamicpb.Message) *dynamicpb.Message { return parent("service") })
	files := new(protoregistry.Files)
	if err := files.RegisterFile(file); err != nil {
		panic(err)
	}
	names := grpcreflect.NamerFunc(func() []string { return []string{"e.Tree"} })
	mux.Handle(grpcreflect.NewHandlerV1(grpcreflect.NewReflector(names, grpcreflect.WithDescriptorResolver(files))))
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	if err := os.WriteFile("address", []byte(l.Addr().String()+"\n"), 0o600); err != nil {
		panic(err)
	}
	panic((&http.Server{Handler: mux, Protocols: &both}).Serve(l))
}
EOT
GOFLAGS=-mod=mod go mod tidy > /dev/null 2>&1
go build -o tree .
go list -m connectrpc.com/connect connectrpc.com/grpcreflect google.golang.org/protobuf
go version -m grpcurl | awk '$1 == "mod" || $2 == "github.com/jhump/protoreflect" { print $2, $3 }'
./tree > served &
server=$!
until [ -s address ]; do sleep 0.1; done
address=$(cat address)
{
  echo "describe: $(./grpcurl -plaintext "$address" describe e.Node | grep 'next =')"
  echo "Echo: $(./grpcurl -plaintext -d '{"name":"grpcurl","next":{"name":"x"}}' "$address" e.Tree/Echo | tr -d ' \n')"
  echo "Make: $(./grpcurl -plaintext -d '{"name":"grpcurl"}' "$address" e.Tree/Make | tr -d ' \n')"
  ./tree "$address"
  cat served
} | tee seen
cat > want <<'EOT'
describe:   .e.Node next = 2 [features = { message_encoding: DELIMITED }];
Echo: {"name":"grpcurl","next":{"name":"x"}}
Make: {"name":"service","next":{"name":"childofservice"}}
service: name "grpcurl", next set: false, unknown: "\x12\x03\n\x01x"
service: name "grpcurl", next set: false, unknown: ""
service: name "go", next set: true, unknown: ""
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
