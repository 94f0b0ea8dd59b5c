package main

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/gofeaturespb"
)

// method is a method of a …delegate interface.
type method struct {
	*protogen.Method

	whole      bool     // the request is one parameter
	params     []*param // of the request, in the order of the fields' numbers
	oneofs     []*oneof
	request    string // the Go type, without its star
	response   string
	noResponse bool // the method returns only an error
	context    string
	seq        string // iter.Seq2, where it is used
	signature  string
}

// param is a parameter that stands for a field of the request.
type param struct {
	*protogen.Field // nil for a request that is passed whole

	name, typ string
}

// oneof is a oneof of the request and the parameters of its fields.
type oneof struct {
	*protogen.Oneof

	params []*param
}

// choice tells whether there is anything to choose.
func (o *oneof) choice() bool { return len(o.params) > 1 }

// method takes a method apart. Its parameters have no names yet.
func (w *delegateWriter) method(m *protogen.Method) *method {
	out := &method{
		Method:     m,
		request:    w.goIdent(m.Input.GoIdent),
		noResponse: isEmpty(m.Output) && !m.Desc.IsStreamingServer(),
		context:    w.ident(contextPackage, "Context"),
	}
	if !out.noResponse {
		out.response = w.goIdent(m.Output.GoIdent)
	}
	if m.Desc.IsStreamingClient() || m.Desc.IsStreamingServer() {
		out.seq = w.ident(iterPackage, "Seq2")
		w.ident(delegatePackage, "")
	}
	if m.Desc.IsStreamingClient() {
		return out
	}
	if out.whole = isWhole(m.Input); out.whole {
		out.params = []*param{{typ: "*" + out.request}}
		return out
	}
	fields := slices.Clone(m.Input.Fields)
	slices.SortFunc(fields, func(a, b *protogen.Field) int { return int(a.Desc.Number() - b.Desc.Number()) })
	for _, f := range fields {
		out.add(&param{Field: f, typ: w.fieldType(f)})
	}
	if slices.ContainsFunc(out.oneofs, (*oneof).choice) {
		w.ident(delegatePackage, "")
	}
	return out
}

func (m *method) add(p *param) {
	m.params = append(m.params, p)
	if !inOneof(p.Field) {
		return
	}
	for _, o := range m.oneofs {
		if o.Oneof == p.Oneof {
			o.params = append(o.params, p)
			return
		}
	}
	m.oneofs = append(m.oneofs, &oneof{Oneof: p.Oneof, params: []*param{p}})
}

// inOneof tells whether a field is in a oneof that somebody wrote.
func inOneof(f *protogen.Field) bool { return f.Oneof != nil && !f.Oneof.Desc.IsSynthetic() }

// isWhole tells whether a request is passed as a message: where it is a well-known
// type, whose fields mean little each, or has extensions, which are no parameters.
func isWhole(m *protogen.Message) bool {
	wellKnown := m.Desc.ParentFile().Package() == "google.protobuf" && !isEmpty(m)
	return wellKnown || m.Desc.ExtensionRanges().Len() > 0
}

// isEmpty tells whether a message says nothing.
func isEmpty(m *protogen.Message) bool {
	return len(m.Fields) == 0 && m.Desc.ExtensionRanges().Len() == 0
}

// nameParams gives the parameters their names and makes the signature. Names of the
// file are taken: a parameter must not hide an import that the body uses.
func (m *method) nameParams(file scope) {
	taken := newScope(file)
	for _, local := range []string{"ctx", "d", requestVar, "requests", "res", "err"} {
		taken[local] = true
	}
	in := []string{"ctx " + m.context}
	for _, p := range m.params {
		name := "request"
		if p.Field != nil {
			name = unexported(p.GoName)
		}
		p.name = taken.take(name)
		in = append(in, p.name+" "+p.typ)
	}
	stream := m.seq + "[*" + m.request + ", error]"
	switch client, server := m.Desc.IsStreamingClient(), m.Desc.IsStreamingServer(); {
	case client && server:
		in = append(in, "requests func("+m.context+") "+stream)
	case client:
		in = append(in, "requests "+stream)
	}
	m.signature = "(" + strings.Join(in, ", ") + ") " + m.results()
}

func (m *method) results() string {
	switch {
	case m.Desc.IsStreamingServer():
		return m.seq + "[*" + m.response + ", error]"
	case m.noResponse:
		return "error"
	default:
		return "(*" + m.response + ", error)"
	}
}

// fieldType returns the Go type of a parameter: that of the field, where nil says that
// the field is not set.
func (s *source) fieldType(f *protogen.Field) string {
	switch typ := s.elementType(f); {
	case f.Desc.IsMap():
		return "map[" + s.elementType(f.Message.Fields[0]) + "]" + s.elementType(f.Message.Fields[1])
	case f.Desc.IsList():
		return "[]" + typ
	case f.Desc.HasPresence() && !strings.HasPrefix(typ, "*") && typ != "[]byte":
		return "*" + typ
	default:
		return typ
	}
}

var scalarTypes = map[protoreflect.Kind]string{
	protoreflect.BoolKind: "bool", protoreflect.StringKind: "string", protoreflect.BytesKind: "[]byte",
	protoreflect.Int32Kind: "int32", protoreflect.Sint32Kind: "int32", protoreflect.Sfixed32Kind: "int32", //nolint:goconst // a table of types
	protoreflect.Int64Kind: "int64", protoreflect.Sint64Kind: "int64", protoreflect.Sfixed64Kind: "int64", //nolint:goconst // a table of types
	protoreflect.Uint32Kind: "uint32", protoreflect.Fixed32Kind: "uint32",
	protoreflect.Uint64Kind: "uint64", protoreflect.Fixed64Kind: "uint64",
	protoreflect.FloatKind: "float32", protoreflect.DoubleKind: "float64",
}

// elementType returns the Go type of one value of a field.
func (s *source) elementType(f *protogen.Field) string {
	switch {
	case f.Desc.IsMap():
		return ""
	case f.Enum != nil:
		return s.goIdent(f.Enum.GoIdent)
	case f.Message != nil:
		return "*" + s.goIdent(f.Message.GoIdent)
	default:
		return scalarTypes[f.Desc.Kind()]
	}
}

// message writes req, made of the parameters.
func (w *delegateWriter) message(m *method) {
	if m.Input.APILevel == gofeaturespb.GoFeatures_API_OPAQUE {
		w.p("req := ", w.goIdent(m.Input.GoIdent), "_builder{")
		for _, p := range m.params {
			w.p(p.BuilderFieldName(), ": ", p.name, ",")
		}
		w.p("}.Build()")
		return
	}
	w.p("req := &", m.request, "{")
	for _, p := range m.params {
		if !inOneof(p.Field) {
			w.p(p.GoName, ": ", p.name, ",")
		}
	}
	w.p("}")
	for _, o := range m.oneofs {
		w.p("switch {")
		for _, p := range o.params {
			value := p.name
			if p.typ != w.elementType(p.Field) {
				value = "*" + value
			}
			w.p("case ", p.name, " != nil:")
			w.p("req.", o.GoName, " = &", w.goIdent(p.GoIdent), "{", p.GoName, ": ", value, "}")
		}
		w.p("}")
	}
}
