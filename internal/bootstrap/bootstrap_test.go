package bootstrap_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/bootstrap"
)

func TestMessagesArriveOneByOne(t *testing.T) {
	t.Parallel()
	var pipe bytes.Buffer
	sent := []bootstrap.Message{
		{SelfID: "a", HostURL: "https://127.0.0.1:1", Key: []byte("key"), Certificate: []byte("one"), Metadata: map[string]string{"a": "b"}},
		{Certificate: []byte("two")},
	}
	for i := range sent {
		if err := bootstrap.Write(&pipe, &sent[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range sent {
		got, err := bootstrap.Read(&pipe)
		if err != nil || !reflect.DeepEqual(*got, sent[i]) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if _, err := bootstrap.Read(&pipe); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"half a length":   "\x00\x00",
		"half a message":  "\x00\x00\x00\x09{",
		"a length of 4 G": "\xff\xff\xff\xff",
		"no JSON":         "\x00\x00\x00\x09secretkey",
	} {
		_, err := bootstrap.Read(strings.NewReader(in))
		if err == nil || strings.Contains(err.Error(), "secretkey") || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMessageDoesNotPrintItsKey(t *testing.T) {
	t.Parallel()
	m := bootstrap.Message{SelfID: "a", Key: []byte("private")}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, v := range []any{m, &m} {
			if s := fmt.Sprintf(format, v); strings.Contains(s, "private") || strings.Contains(s, "112") {
				t.Errorf("%s prints %s", format, s)
			}
		}
	}
}
