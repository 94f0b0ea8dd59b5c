package main

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// delegateNames are the names of what a service has in its …delegate package.
type delegateNames struct {
	service, client, construct, fromURL string
}

// delegateNames names what the services of the package have: the interfaces first,
// which are called as the services are, and the constructors of the only one last.
func (pkg *goPackage) delegateNames() (map[*declaration]*delegateNames, scope) {
	names, taken := map[*declaration]*delegateNames{}, scope{}
	for _, d := range pkg.all {
		names[d] = &delegateNames{service: taken.take(d.GoName)}
	}
	for _, d := range pkg.all {
		n := names[d]
		n.client = taken.take(unexported(d.GoName) + "Client")
		n.construct = taken.take("New" + d.GoName)
		n.fromURL = taken.take("New" + d.GoName + "FromURL")
	}
	return names, taken
}

// delegateFile makes the interfaces and clients of the services of a file.
func (pkg *goPackage) delegateFile(file *protogen.File) *source {
	names, taken := pkg.delegateNames()
	short := len(pkg.all) == 1 && !taken["New"] && !taken["NewFromURL"]
	if short {
		taken["New"], taken["NewFromURL"] = true, true
	}
	src := newSource(pkg.name+delegateSuffix, file.Desc.Path(), pkg.prefer, taken)
	src.doc = []string{
		"Package " + src.pkg + " has each service of the protobuf package " + string(file.Desc.Package()) + " as a Go interface, and clients.",
	}
	for _, d := range pkg.of(file) {
		w := &delegateWriter{source: src, d: d, n: names[d], connect: pkg.connectPackage(file), simple: pkg.params.simple}
		w.service()
		w.constructors()
		if short {
			w.shortConstructors()
		}
		w.client()
	}
	return src
}

// delegateWriter writes the interface and the client of one service.
type delegateWriter struct {
	*source

	d       *declaration
	n       *delegateNames
	connect protogen.GoImportPath // of the generated Connect code
	simple  bool
	methods []*method
}

// service writes the interface.
func (w *delegateWriter) service() {
	// Types and the packages that bodies use first: parameters are called otherwise.
	w.ident(connectPackage, "")
	for _, m := range w.d.Methods {
		w.methods = append(w.methods, w.method(m))
	}
	for _, m := range w.methods {
		m.nameParams(w.names)
	}
	if lines := docLines(w.d.Comments.Leading); lines != nil {
		w.comment(lines...)
	} else {
		w.comment(w.n.service + " is the service " + string(w.d.Desc.FullName()) + ".")
	}
	if deprecated(w.d.Desc) {
		w.comment("", "Deprecated: the service is marked so.")
	}
	w.p("type ", w.n.service, " interface {")
	for _, m := range w.methods {
		w.comment(docLines(m.Comments.Leading)...)
		if deprecated(m.Desc) {
			if m.Comments.Leading != "" {
				w.comment("")
			}
			w.comment("Deprecated: the method is marked so.")
		}
		w.p(m.GoName, m.signature)
	}
	w.p("}")
	w.p()
}

func (w *delegateWriter) constructors() {
	construct, fromURL := w.n.construct, w.n.fromURL
	client, option := w.ident(w.connect, w.d.GoName+"Client"), w.ident(connectPackage, "ClientOption")
	w.comment(construct + " calls the service with a client.")
	w.p("func ", construct, "(client ", client, ") ", w.n.service, " { return &", w.n.client, "{client: client} }")
	w.p()
	w.comment(fromURL+" calls the service at a base URL with [http.DefaultClient], which trusts the",
		"system's certificates and shows none. For anything else, make a client and call "+construct+".")
	w.p("func ", fromURL, "(url string, opts ...", option, ") ", w.n.service, " {")
	newClient := w.ident(w.connect, "New"+w.d.GoName+"Client")
	w.p("return ", construct, "(", newClient, "(", w.ident(httpPackage, "DefaultClient"), ", url, opts...))")
	w.p("}")
	w.p()
}

// shortConstructors writes those of the only service of a package.
func (w *delegateWriter) shortConstructors() {
	client, option := w.ident(w.connect, w.d.GoName+"Client"), w.ident(connectPackage, "ClientOption")
	w.comment("New is " + w.n.construct + ": the package has one service.")
	w.p("func New(client ", client, ") ", w.n.service, " { return ", w.n.construct, "(client) }")
	w.p()
	w.comment("NewFromURL is " + w.n.fromURL + ".")
	w.p("func NewFromURL(url string, opts ...", option, ") ", w.n.service, " { return ", w.n.fromURL, "(url, opts...) }")
	w.p()
}

// client writes the type that implements the interface.
func (w *delegateWriter) client() {
	w.comment(w.n.client + " implements " + w.n.service + ".")
	w.p("type ", w.n.client, " struct {")
	w.p("client ", w.ident(w.connect, w.d.GoName+"Client"))
	w.p("}")
	w.p()
	for _, m := range w.methods {
		w.p("func (d *", w.n.client, ") ", m.GoName, m.signature, " {")
		w.methodBody(m)
		w.p("}")
		w.p()
	}
}

// deprecated tells whether a service or a method is marked so.
func deprecated(d protoreflect.Descriptor) bool {
	switch o := d.Options().(type) {
	case *descriptorpb.ServiceOptions:
		return o.GetDeprecated()
	case *descriptorpb.MethodOptions:
		return o.GetDeprecated()
	}
	return false
}

// methodBody writes what a method of the client does.
func (w *delegateWriter) methodBody(m *method) {
	simple := ""
	if w.simple {
		simple = "Simple"
	}
	call := "d.client." + m.GoName
	switch client, server := m.Desc.IsStreamingClient(), m.Desc.IsStreamingServer(); {
	case client && server:
		w.p("return ", w.ident(delegatePackage, "BidiStream"), simple, "(ctx, requests, ", call, ")")
	case client:
		w.clientStreamBody(m, call, simple)
	case server:
		w.request(m, "return "+w.ident(delegatePackage, "Fail")+"["+m.response+"](err)")
		w.p("return ", w.ident(delegatePackage, "ServerStream"), simple, "(ctx, ", call, ", req)")
	default:
		w.unaryBody(m, call)
	}
}

func (w *delegateWriter) clientStreamBody(m *method, call, simple string) {
	upload := w.ident(delegatePackage, "ClientStream") + simple + "(ctx, requests, " + call + ")"
	if m.noResponse {
		w.p("_, err := ", upload)
		w.p("return err")
		return
	}
	w.p("return ", upload)
}

func (w *delegateWriter) unaryBody(m *method, call string) {
	failed := "return nil, err"
	if m.noResponse {
		failed = "return err"
	}
	w.request(m, failed)
	req := requestVar
	if !w.simple {
		req = w.ident(connectPackage, "NewRequest") + "(" + requestVar + ")"
	}
	switch call += "(ctx, " + req + ")"; {
	case m.noResponse:
		w.p("_, err := ", call)
		w.p("return err")
	case w.simple:
		w.p("return ", call)
	default:
		w.p("res, err := ", call)
		w.p("if err != nil {")
		w.p("return nil, err")
		w.p("}")
		w.p("return res.Msg, nil")
	}
}

// request writes the message that the parameters make; failed is what follows where
// they make none.
func (w *delegateWriter) request(m *method, failed string) {
	for _, o := range m.oneofs {
		if !o.choice() {
			continue
		}
		set := make([]string, 0, 1+len(o.params))
		set = append(set, strconv.Quote(string(o.Desc.Name())))
		for _, p := range o.params {
			set = append(set, p.name+" != nil")
		}
		w.p("if err := ", w.ident(delegatePackage, "OneOf"), "(", strings.Join(set, ", "), "); err != nil {")
		w.p(failed)
		w.p("}")
	}
	if m.whole {
		w.p("req := ", m.params[0].name)
		return
	}
	w.message(m)
}
