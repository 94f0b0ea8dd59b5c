// Command kinds sends every kind of field through generated code and compares what
// arrives.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"

	hybridv1 "example.com/gentest/edition/hybrid/v1"
	"example.com/gentest/edition/hybrid/v1/hybridv1connect"
	"example.com/gentest/edition/hybrid/v1/hybridv1delegate"
	"example.com/gentest/edition/hybrid/v1/hybridv1plugin"
	latestv1 "example.com/gentest/edition/latest/v1"
	"example.com/gentest/edition/latest/v1/latestv1connect"
	"example.com/gentest/edition/latest/v1/latestv1delegate"
	"example.com/gentest/edition/latest/v1/latestv1plugin"
	opaquev1 "example.com/gentest/edition/opaque/v1"
	"example.com/gentest/edition/opaque/v1/opaquev1connect"
	"example.com/gentest/edition/opaque/v1/opaquev1delegate"
	"example.com/gentest/edition/opaque/v1/opaquev1plugin"
	openv1 "example.com/gentest/edition/open/v1"
	"example.com/gentest/edition/open/v1/openv1connect"
	"example.com/gentest/edition/open/v1/openv1delegate"
	"example.com/gentest/edition/open/v1/openv1plugin"
	kindsv1 "example.com/gentest/kinds/v1"
	"example.com/gentest/kinds/v1/kindsv1connect"
	"example.com/gentest/kinds/v1/kindsv1delegate"
	"example.com/gentest/kinds/v1/kindsv1plugin"
)

// seen is the last request that a server decoded.
var seen proto.Message

// record notes requests.
func record() connect.HandlerOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			seen = req.Any().(proto.Message)
			return next(ctx, req)
		}
	}))
}

type kinds struct {
	kindsv1connect.UnimplementedKindsServiceHandler
}

func (kinds) When(_ context.Context, req *connect.Request[timestamppb.Timestamp]) (*connect.Response[wrapperspb.StringValue], error) {
	return connect.NewResponse(wrapperspb.String(req.Msg.AsTime().UTC().Format(time.RFC3339))), nil
}

func (kinds) Nothing(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
	return connect.NewResponse(&emptypb.Empty{}), nil
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(ctx context.Context) error {
	metadata := (&kindsv1plugin.KindsServicePlugin{}).Metadata()
	want := []connectplugin.ServiceDependency{
		{Type: "storage", MinVersion: ">=1.2, <2", RequiredForStartup: true}, {Type: "logger", WatchForChanges: true},
	}
	if metadata.Name != "all-kinds" || metadata.Version != "2.3.4-rc.1" || fmt.Sprint(metadata.Requires) != fmt.Sprint(want) {
		return fmt.Errorf("metadata of KindsService: %+v", metadata)
	}
	set := connectplugin.PluginSet{}
	for _, p := range []connectplugin.Plugin{
		&kindsv1plugin.KindsServicePlugin{}, &kindsv1plugin.Proto2ServicePlugin{}, &openv1plugin.OpenServicePlugin{},
		&hybridv1plugin.HybridServicePlugin{}, &opaquev1plugin.OpaqueServicePlugin{}, &latestv1plugin.LatestServicePlugin{},
	} {
		set[p.Metadata().Name] = p
	}
	if err := set.Validate(); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(kindsv1connect.NewKindsServiceHandler(kinds{}, record()))
	mux.Handle(kindsv1connect.NewProto2ServiceHandler(kindsv1connect.UnimplementedProto2ServiceHandler{}, record()))
	mux.Handle(openv1connect.NewOpenServiceHandler(openv1connect.UnimplementedOpenServiceHandler{}, record()))
	mux.Handle(hybridv1connect.NewHybridServiceHandler(hybridv1connect.UnimplementedHybridServiceHandler{}, record()))
	mux.Handle(opaquev1connect.NewOpaqueServiceHandler(opaquev1connect.UnimplementedOpaqueServiceHandler{}, record()))
	mux.Handle(latestv1connect.NewLatestServiceHandler(latestv1connect.UnimplementedLatestServiceHandler{}, record()))
	host := httptest.NewServer(mux)
	defer host.Close()
	for _, check := range []func(context.Context, string) error{fields, choices, wellKnown, proto2, editions} {
		if err := check(ctx, host.URL); err != nil {
			return err
		}
	}
	return nil
}

// arrived compares the last request with what was meant.
func arrived(err error, want proto.Message) error {
	if connect.CodeOf(err) != connect.CodeUnimplemented {
		return fmt.Errorf("%T: %w", want, err)
	}
	if !proto.Equal(seen, want) {
		return fmt.Errorf("got %v\nwant %v", seen, want)
	}
	return nil
}

func fields(ctx context.Context, url string) error {
	d := kindsv1delegate.NewKindsServiceFromURL(url)
	_, err := d.Scalars(ctx, 1.5, 2.5, -3, -4, 5, 6, -7, -8, 9, 10, -11, -12, true, "s", []byte("b"), kindsv1.Color_COLOR_RED)
	scalars := arrived(err, &kindsv1.ScalarsRequest{
		ADouble: 1.5, AFloat: 2.5, AnInt32: -3, AnInt64: -4, AUint32: 5, AUint64: 6, ASint32: -7, ASint64: -8, AFixed32: 9, AFixed64: 10,
		ASfixed32: -11, ASfixed64: -12, ABool: true, AString: "s", ABytes: []byte("b"), AColor: kindsv1.Color_COLOR_RED,
	})
	nested := &kindsv1.OptionalRequest_Nested{Deep: true}
	_, err = d.Optional(ctx, new(int32(0)), new(""), []byte{}, kindsv1.Color_COLOR_UNSPECIFIED.Enum(), nested, nil)
	zero := arrived(err, &kindsv1.OptionalRequest{
		Number: new(int32(0)), Text: new(""), Data: []byte{}, Color: kindsv1.Color_COLOR_UNSPECIFIED.Enum(), Nested: nested,
	})
	_, err = d.Optional(ctx, nil, nil, nil, nil, nil, nested)
	unset := arrived(err, &kindsv1.OptionalRequest{Plain: nested})
	_, err = d.Composite(ctx, []string{"a", "b"}, [][]byte{{1}}, []kindsv1.Color{1, 0}, []*kindsv1.OptionalRequest_Nested{nested},
		map[string]int64{"x": 1}, map[int32]*kindsv1.OptionalRequest_Nested{2: nested}, map[bool]kindsv1.Color{true: 1}, map[string][]byte{"r": {2}})
	composite := arrived(err, &kindsv1.CompositeRequest{
		Words: []string{"a", "b"}, Blobs: [][]byte{{1}}, Colors: []kindsv1.Color{1, 0}, Nested: []*kindsv1.OptionalRequest_Nested{nested},
		Counts: map[string]int64{"x": 1}, ByNumber: map[int32]*kindsv1.OptionalRequest_Nested{2: nested},
		ByTruth: map[bool]kindsv1.Color{true: 1}, Raw: map[string][]byte{"r": {2}},
	})
	_, err = d.Numbered(ctx, "first", "second", "third")
	numbered := arrived(err, &kindsv1.NumberedRequest{First: "first", Second: "second", Third: "third"})
	return errors.Join(scalars, zero, unset, composite, numbered)
}

func choices(ctx context.Context, url string) error {
	d := kindsv1delegate.NewKindsServiceFromURL(url)
	var errs []error
	check := func(err error, want *kindsv1.ChoicesRequest) { errs = append(errs, arrived(err, want)) }
	_, err := d.Choices(ctx, "b", nil, nil, nil, nil, nil, nil, nil)
	check(err, &kindsv1.ChoicesRequest{Before: "b"})
	_, err = d.Choices(ctx, "", new(""), nil, nil, nil, nil, nil, new(false))
	check(err, &kindsv1.ChoicesRequest{Choice: &kindsv1.ChoicesRequest_Name{}, Alone: &kindsv1.ChoicesRequest_Only{}})
	_, err = d.Choices(ctx, "", nil, new(int64(7)), nil, nil, nil, nil, nil)
	check(err, &kindsv1.ChoicesRequest{Choice: &kindsv1.ChoicesRequest_Id{Id: 7}})
	_, err = d.Choices(ctx, "", nil, nil, []byte{}, nil, nil, nil, nil)
	check(err, &kindsv1.ChoicesRequest{Choice: &kindsv1.ChoicesRequest_Blob{Blob: []byte{}}})
	_, err = d.Choices(ctx, "", nil, nil, nil, kindsv1.Color_COLOR_RED.Enum(), nil, nil, nil)
	check(err, &kindsv1.ChoicesRequest{Choice: &kindsv1.ChoicesRequest_Color{Color: 1}})
	_, err = d.Choices(ctx, "", nil, nil, nil, nil, nil, durationpb.New(time.Second), nil)
	check(err, &kindsv1.ChoicesRequest{Choice: &kindsv1.ChoicesRequest_Wait{Wait: durationpb.New(time.Second)}})
	seen = nil
	if _, err := d.Choices(ctx, "", new("n"), new(int64(7)), nil, nil, nil, nil, nil); connect.CodeOf(err) != connect.CodeInvalidArgument || seen != nil {
		errs = append(errs, fmt.Errorf("two of a oneof: %w, sent %v", err, seen))
	}
	return errors.Join(errs...)
}

func wellKnown(ctx context.Context, url string) error {
	d := kindsv1delegate.NewKindsServiceFromURL(url)
	at := timestamppb.New(time.Unix(1e9, 0))
	anything, _ := anypb.New(at)
	tree, _ := structpb.NewStruct(map[string]any{"a": []any{1, "b", nil}})
	_, err := d.WellKnown(ctx, at, anything, tree, wrapperspb.String(""), structpb.NullValue_NULL_VALUE, []*durationpb.Duration{{Seconds: 1}})
	if err := arrived(err, &kindsv1.WellKnownRequest{
		At: at, Anything: anything, Tree: tree, Maybe: wrapperspb.String(""), Waits: []*durationpb.Duration{{Seconds: 1}},
	}); err != nil {
		return err
	}
	if res, err := d.When(ctx, at); err != nil || res.GetValue() != "2001-09-09T01:46:40Z" {
		return fmt.Errorf("When: %v, %w", res, err)
	}
	return d.Nothing(ctx)
}

func proto2(ctx context.Context, url string) error {
	d := kindsv1delegate.NewProto2ServiceFromURL(url)
	part := &kindsv1.FieldsRequest_Part{Inside: new("in")}
	_, err := d.Fields(ctx, new("must"), new(int32(0)), nil, []int32{1, 2}, part)
	if err := arrived(err, &kindsv1.FieldsRequest{Must: new("must"), Number: new(int32(0)), Packed: []int32{1, 2}, Part: part}); err != nil {
		return err
	}
	whole := &kindsv1.ExtendedRequest{Name: new("n")}
	_, err = d.Extended(ctx, whole)
	return arrived(err, whole)
}

func editions(ctx context.Context, url string) error {
	_, err := openv1delegate.NewFromURL(url).Put(ctx, new("e"), "i", []byte{}, openv1.Closed_CLOSED_ONE.Enum(), &openv1.PutRequest_Part{Text: new("p")},
		map[string]*openv1.PutRequest_Part{"k": {}}, []int32{1}, nil, new(int64(0)), nil, nil, new("g"), new("b"))
	open := arrived(err, &openv1.PutRequest{
		Explicit: new("e"), Implicit: "i", Data: []byte{}, Closed: openv1.Closed_CLOSED_ONE.Enum(), Part: &openv1.PutRequest_Part{Text: new("p")},
		Parts: map[string]*openv1.PutRequest_Part{"k": {}}, Numbers: []int32{1}, Choice: &openv1.PutRequest_Id{}, GetExplicit_: new("g"), Build: new("b"),
	})
	_, err = hybridv1delegate.NewFromURL(url).Put(ctx, new("e"), "i", nil, nil, nil, nil, nil, nil, nil, []byte("bl"), nil, new("g"), nil)
	hybrid := arrived(err, hybridv1.PutRequest_builder{Explicit: new("e"), Implicit: "i", Blob: []byte("bl"), GetExplicit: new("g")}.Build())
	piece := opaquev1.PutRequest_Part_builder{Text: new("t")}.Build()
	_, err = opaquev1delegate.NewFromURL(url).Put(ctx, nil, "i", []byte{}, opaquev1.Closed_CLOSED_ONE.Enum(), nil,
		map[string]*opaquev1.PutRequest_Part{"k": piece}, []int32{1}, nil, nil, nil, piece, nil, new("b"))
	opaque := &opaquev1.PutRequest{}
	opaque.SetImplicit("i")
	opaque.SetData([]byte{})
	opaque.SetClosed(opaquev1.Closed_CLOSED_ONE)
	opaque.SetParts(map[string]*opaquev1.PutRequest_Part{"k": piece})
	opaque.SetNumbers([]int32{1})
	opaque.SetPiece(piece)
	opaque.SetBuild_("b")
	opaqueErr := arrived(err, opaque)
	_, err = latestv1delegate.NewFromURL(url).Put(ctx, new(""), new("n"), nil)
	latest := &latestv1.PutRequest{}
	latest.SetText("")
	latest.SetName("n")
	return errors.Join(open, hybrid, opaqueErr, arrived(err, latest))
}
