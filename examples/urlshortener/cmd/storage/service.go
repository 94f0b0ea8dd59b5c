package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	storagev1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/storage/v1"
)

const (
	maxKey   = 1024
	maxValue = 64 << 10

	fileMode = 0o600
	lockWait = 2 * time.Second
	// batchDelay is how long a write waits for others to share its fsync.
	batchDelay = 2 * time.Millisecond
)

var bucket = []byte("values")

// storageService keeps keys and values in a bbolt file.
type storageService struct {
	db     *bbolt.DB
	logger *capabilityLogger
}

func openStorage(path string) (*storageService, error) {
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockWait})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s is in use by another process; stop that, or name another with -file", path)
	}

	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}

	db.MaxBatchDelay = batchDelay

	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)

		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open: %w", err), db.Close())
	}

	return &storageService{db: db, logger: newCapabilityLogger()}, nil
}

// Close stops logging and closes the file.
func (s *storageService) Close() {
	s.logger.Close()

	_ = s.db.Close()
}

// Put stores a value and returns when it is on disk: concurrent calls share one
// transaction, and so one fsync.
func (s *storageService) Put(_ context.Context, req *storagev1.PutRequest) (*storagev1.PutResponse, error) {
	if err := checkKey(req.GetKey()); err != nil {
		return nil, err
	}

	if len(req.GetValue()) > maxValue {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("value: has more than %d bytes", maxValue))
	}

	key, value := []byte(req.GetKey()), req.GetValue()
	isNew := false
	err := s.db.Batch(func(tx *bbolt.Tx) error {
		value = req.GetValue() // a batch may run this again

		if held := tx.Bucket(bucket).Get(key); held != nil {
			value, isNew = bytes.Clone(held), false

			return nil
		}

		isNew = true

		return tx.Bucket(bucket).Put(key, value)
	})
	if err != nil {
		return nil, s.failed("put", err)
	}

	if isNew {
		s.logger.Log("info", "stored", map[string]string{"key": req.GetKey()})
	}

	return &storagev1.PutResponse{Value: value}, nil
}

// Get returns the value of a key.
func (s *storageService) Get(_ context.Context, req *storagev1.GetRequest) (*storagev1.GetResponse, error) {
	if err := checkKey(req.GetKey()); err != nil {
		return nil, err
	}

	var value []byte

	err := s.db.View(func(tx *bbolt.Tx) error {
		value = bytes.Clone(tx.Bucket(bucket).Get([]byte(req.GetKey())))

		return nil
	})
	if err != nil {
		return nil, s.failed("get", err)
	}

	if value == nil {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no such key"))
	}

	return &storagev1.GetResponse{Value: value}, nil
}

// failed logs what happened; the caller learns only that something did.
func (s *storageService) failed(what string, err error) error {
	s.logger.Log("error", what+" failed", map[string]string{"error": err.Error()})

	return connect.NewError(connect.CodeInternal, errors.New("storage failed"))
}

func checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("key: must have 1 to %d bytes", maxKey))
	}

	return nil
}
