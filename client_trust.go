package connectplugin

func (c *Client) explainLink(err error) error { return err }
