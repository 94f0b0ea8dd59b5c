package page_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/masegraye/connect-plugin-go/console/page"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// hostileHost is a host of which every text is hostile, whatever this library would let a plugin say.
type hostileHost struct {
	adminv1connect.UnimplementedAdminReadServiceHandler
}

// Follow sends that host.
func (hostileHost) Follow(ctx context.Context, _ *connect.Request[adminv1.FollowRequest], stream *connect.ServerStream[adminv1.FollowResponse]) error {
	m := &adminv1.FollowResponse{}
	spoil(m.ProtoReflect())
	for _, e := range m.GetEvents() {
		e.Kind, e.Refusal = "denied", true
	}
	if err := stream.Send(m); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// spoil sets every field below a message, texts to what is hostile.
func spoil(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.Message() != nil && f.IsList():
			spoil(m.Mutable(f).List().AppendMutable().Message())
		case f.Message() != nil && f.Message().FullName().Parent() != "google.protobuf":
			spoil(m.Mutable(f).Message())
		case f.Message() != nil:
			m.Mutable(f) // a time
		case f.Kind() == protoreflect.StringKind && f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfString(hostile))
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(hostile))
		case f.Kind() == protoreflect.Uint32Kind:
			m.Set(f, protoreflect.ValueOfUint32(1))
		case f.Kind() == protoreflect.Uint64Kind:
			m.Set(f, protoreflect.ValueOfUint64(1))
		}
	}
}

// A host whose every text is made to become a part of the page has none of them do so.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	program := chromium(t)
	mux := http.NewServeMux()
	mux.Handle(adminv1connect.NewAdminReadServiceHandler(hostileHost{}))
	host := httptest.NewServer(mux)
	t.Cleanup(host.Close)
	s := servePage(t, page.Config{
		Read:   adminv1connect.NewAdminReadServiceClient(host.Client(), host.URL),
		Change: adminv1connect.NewAdminChangeServiceClient(host.Client(), host.URL),
	}, hosttest.Listen(t))
	b := openBrowser(t, program, s.Link())
	hosttest.Eventually(t, "the page shows the host", func() bool {
		return b.evaluate(t, `String(document.querySelectorAll("#denials li").length > 0 && document.querySelectorAll("tbody tr").length > 2)`) == "true"
	})
	b.screenshots(t, "hostile")
	if got := b.evaluate(t, `document.title + document.querySelectorAll("img,iframe,object,script:not([src]),style,a:not(.skip),td td").length`); got != "connectplugin0" {
		t.Errorf("title and elements that no page has: %s", got)
	}
	if got := b.evaluate(t, `String(document.body.textContent.split("<img src=x").length > 20)`); got != "true" {
		t.Error("the texts are not shown")
	}
	if got := b.evaluate(t, `String(/[\p{Cf}\p{Variation_Selector}\p{Default_Ignorable_Code_Point}]/u.test(document.body.textContent))`); got != "false" {
		t.Error("characters that nobody sees are in the page")
	}
}
